"""Tokens a second through the API as a share of the bare engine's: both asked in turn, the same requests, in rounds."""

from __future__ import annotations

import time
from typing import Any

from bench.gpu.measurement import Measurement
from bench.load import chat_body
from bench.programs import BenchmarkError, generate_load
from bench.running import RunningStack

SECTION = "speed"
STREAMS = (1, 4, 16)
# Answers long enough that a millisecond at their beginning is no percent of one.
TOKENS = 256
# Without a card only the flow is tried.
TRIAL_TOKENS = 8
MOST_ROUNDS, SECONDS = 9, 80.0
# What a round may take longer than the ones before, so that the last one ends in time.
_MARGIN = 1.5
_DEADLINE_SECONDS = 60
BARE, OURS = "bare engine", "through the API"


def measure_speed(measurement: Measurement, running: RunningStack) -> None:
    """Measure as many rounds as there is time for, at least one, with each number of streams."""
    tokens = TOKENS if measurement.has_card else TRIAL_TOKENS
    header = f"Authorization: Bearer {running.model_server_key}"
    paths = {BARE: (running.model_server[1], header), OURS: (running.api[1], None)}
    body = _body(measurement.shape.name, tokens)
    for port, key in paths.values():  # the first request of a connection, and the prompt in every slot
        _measure(port, key, max(STREAMS), body)
    until = time.monotonic() + min(SECONDS, measurement.seconds_left / 2)
    rates: dict[tuple[int, str], list[float]] = {}
    firsts: dict[tuple[int, str], list[float]] = {}
    for number in range(MOST_ROUNDS):
        began = time.monotonic()
        for streams in STREAMS:
            for path in (BARE, OURS) if number % 2 else (OURS, BARE):
                port, key = paths[path]
                found = _measure(port, key, streams, body)
                rates.setdefault((streams, path), []).append(found[0])
                firsts.setdefault((streams, path), []).append(found[1])
            _report(measurement, streams, rates, firsts)
        if time.monotonic() + _MARGIN * (time.monotonic() - began) > until:
            break


def _measure(port: int, header: str | None, streams: int, body: dict[str, Any]) -> tuple[float, float]:
    """Return the tokens a second of all streams together, and the milliseconds until the first of each (median).

    Raises BenchmarkError unless every stream came to its end.
    """
    found = generate_load("streams", port, body, header, clients=streams, deadline=_DEADLINE_SECONDS)
    if found["complete"] != streams:
        raise BenchmarkError(f"Of {streams} streams {found['complete']} were complete; statuses: {found['statuses']}")
    return streams * body["max_tokens"] / found["seconds"], found["first"]["p50"]


def _body(model: str, tokens: int) -> dict[str, Any]:
    story = "Write a long story about a panda."
    fields: dict[str, Any] = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    return {**chat_body(story, **fields), "model": model}


def _report(
    measurement: Measurement,
    streams: int,
    rates: dict[tuple[int, str], list[float]],
    firsts: dict[tuple[int, str], list[float]],
) -> None:
    report, name = measurement.report, f"{streams} stream{'s' * (streams > 1)}"
    bare, ours = rates[streams, BARE], rates[streams, OURS]
    report.add_rounds(SECTION, f"{name}, {BARE}", bare, "tokens/s")
    report.add_rounds(SECTION, f"{name}, {OURS}", ours, "tokens/s")
    shares = [mine / most * 100 for mine, most in zip(ours, bare, strict=True) if most]
    if shares:
        report.add_rounds(SECTION, f"{name}, share of the bare engine's", shares, "%")
    for path in (BARE, OURS):
        report.add_rounds(SECTION, f"{name}, first token, {path}", firsts[streams, path], "ms")
