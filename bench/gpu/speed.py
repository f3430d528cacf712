"""Tokens a second through the API as a share of the bare engine's: both asked in turn, the same requests, in rounds."""

from __future__ import annotations

import time
from typing import Any

from bench.gpu.measurement import Measurement
from bench.load import chat_body
from bench.programs import generate_load
from bench.running import RunningStack

SECTION = "speed"
STREAMS = (1, 4, 16)
# Answers long enough that a millisecond at their beginning is no percent of one.
TOKENS = 256
MOST_ROUNDS, SECONDS = 9, 80.0
# What a round may take longer than the ones before, so that the last one ends in time.
_MARGIN = 1.5
_DEADLINE_SECONDS = 60
BARE, OURS = "bare engine", "through the API"


def measure_speed(measurement: Measurement, running: RunningStack, tokens: int = TOKENS) -> None:
    """Measure as many rounds as there is time for, at least one, with each number of streams."""
    header = f"Authorization: Bearer {running.model_server_key}"
    paths = {BARE: (running.model_server[1], header), OURS: (running.api[1], None)}
    for port, key in paths.values():  # the first request of a connection, and the prompt in every slot
        generate_load("streams", port, _body(tokens), key, clients=max(STREAMS), deadline=_DEADLINE_SECONDS)
    until = time.monotonic() + min(SECONDS, measurement.seconds_left / 2)
    rates: dict[tuple[int, str], list[float]] = {}
    firsts: dict[tuple[int, str], list[float]] = {}
    for number in range(MOST_ROUNDS):
        began = time.monotonic()
        for streams in STREAMS:
            for path in (BARE, OURS) if number % 2 else (OURS, BARE):
                port, key = paths[path]
                found = _measure(port, key, streams, tokens)
                rates.setdefault((streams, path), []).append(found[0])
                firsts.setdefault((streams, path), []).append(found[1])
        _report(measurement, rates, firsts)
        if time.monotonic() + _MARGIN * (time.monotonic() - began) > until:
            break


def _measure(port: int, header: str | None, streams: int, tokens: int) -> tuple[float, float]:
    """Return the tokens a second of all streams together, and the milliseconds until the first of each (median)."""
    found = generate_load("streams", port, _body(tokens), header, clients=streams, deadline=_DEADLINE_SECONDS)
    return found["complete"] * tokens / found["seconds"], found["first"].get("p50", float("nan"))


def _body(tokens: int) -> dict[str, Any]:
    story = "Write a long story about a panda."
    return chat_body(story, max_tokens=tokens, temperature=0, ignore_eos=True, stream=True)


def _report(
    measurement: Measurement,
    rates: dict[tuple[int, str], list[float]],
    firsts: dict[tuple[int, str], list[float]],
) -> None:
    report = measurement.report
    for streams in STREAMS:
        name = f"{streams} stream{'s' * (streams > 1)}"
        bare, ours = rates[streams, BARE], rates[streams, OURS]
        report.add_rounds(SECTION, f"{name}, {BARE}", bare, "tokens/s")
        report.add_rounds(SECTION, f"{name}, {OURS}", ours, "tokens/s")
        shares = [mine / most * 100 for mine, most in zip(ours, bare, strict=True) if most]
        report.add_rounds(SECTION, f"{name}, share of the bare engine's", shares, "%")
        for path in (BARE, OURS):
            report.add_rounds(SECTION, f"{name}, first token, {path}", firsts[streams, path], "ms")
