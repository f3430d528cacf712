"""A day's worth of requests at a high rate, and whether any process's memory, or the journal, grows by it."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tabulate import tabulate

from bench.figures import Figures
from bench.paths import OTHER, OURS, EnginePath
from bench.plan import Plan
from bench.programs import BenchmarkError, fake_engine
from bench.running import ROOT, RunningStack, running_stack_of
from bench.server_processes import resident
from bench.soak_client import SoakClient
from bench.tables import format_number

SCENARIO = "soak"
CLIENTS, SAMPLES = 8, 40
# The bundled engine computes, so it gets a share of the requests.
ENGINE_SHARE = 20
ENGINE_TOKENS, TOKENS = 4, 16
# What the prompt cache of the bundled engine may hold in the step that bounds it, in MiB; llama.cpp's default is 8192.
BOUNDED_CACHE = 64
POLL_SECONDS = 0.02
# Growth from the third to the last quarter that counts as none: batches differ, and pages are used first late.
FLAT_MEGABYTES, FLAT_SHARE = 5.0, 0.03
JOURNAL, PENDING = "journal", "waiting for delivery"


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the soak: how many requests to a server with these settings; ``computes``: its engine does."""

    name: str
    requests: int
    settings: dict[str, str] = field(default_factory=dict)
    computes: bool = True


def measure_soak(plan: Plan, figures: Figures) -> None:
    """Send the requests to a fake engine, and a share of them to the bundled one, as it is and with a bounded cache."""
    few = max(CLIENTS, plan.requests // ENGINE_SHARE)
    bounded = {"LLAMA_ARG_CACHE_RAM": str(BOUNDED_CACHE)}
    for name in plan.paths(OURS):
        root = plan.other if name == OTHER and plan.other is not None else ROOT
        with fake_engine(distinct=1) as engine:
            address = {"MODEL_SERVER_URL": f"http://127.0.0.1:{engine.port}"}
            _soak(name, root, Step("fake engine", plan.requests, address, computes=False), figures)
        _soak(name, root, Step("bundled engine", few), figures)
        _soak(name, root, Step("bundled engine, cache bounded", few, bounded), figures)


def _soak(path: str, root: Path, step: Step, figures: Figures) -> None:
    print(f"{step.requests} requests, {step.name}, {path} ...", file=sys.stderr, flush=True)
    with running_stack_of(root, ("bin/serve",), {"LOG_LEVEL": "INFO", **step.settings}) as running:
        began = time.monotonic()
        for done in _send(running, step):
            figures.add((SCENARIO, step.name, path), "requests", done, "", more_is_better=None)
            for what, value in _sample(running).items():
                _add(figures, step, path, what, value)
        seconds = time.monotonic() - began
        figures.add((SCENARIO, step.name, path), "rate", step.requests / seconds, "1/s", more_is_better=True)


def _add(figures: Figures, step: Step, path: str, what: str, value: float) -> None:
    figures.add((SCENARIO, step.name, path), what, value, "" if what == PENDING else "MB")


def _send(running: RunningStack, step: Step) -> Iterator[int]:
    """Send the requests of a step; yield how many have been sent, so often that there are SAMPLES of equal distance.

    Raises BenchmarkError where more than a hundredth of the answers is not what it should be.
    """
    tokens = ENGINE_TOKENS if step.computes else TOKENS
    clients = [SoakClient(running.api[1], number, tokens, brief=step.computes) for number in range(CLIENTS)]
    numbers = itertools.count()
    threads = [
        threading.Thread(target=_send_until, args=(client, numbers, step.requests), daemon=True) for client in clients
    ]
    for thread in threads:
        thread.start()
    marks = [step.requests * number // SAMPLES for number in range(1, SAMPLES + 1)]
    for mark in marks:
        while any(thread.is_alive() for thread in threads) and _sent(clients) < mark:
            time.sleep(POLL_SECONDS)
        yield _sent(clients)
    _require_answers(clients)


def _send_until(client: SoakClient, numbers: Iterator[int], most: int) -> None:
    with contextlib.closing(client):
        while next(numbers) < most:
            client.send_next()


def _sent(clients: Sequence[SoakClient]) -> int:
    return sum(client.sent for client in clients)


def _require_answers(clients: Sequence[SoakClient]) -> None:
    statuses: Counter[int] = Counter()
    wrong: Counter[str] = Counter()
    for client in clients:
        statuses.update(client.statuses)
        wrong.update(client.wrong)
    said = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    print(f"answers: {said}; unexpected: {dict(wrong) or 'none'}", file=sys.stderr, flush=True)
    if wrong.total() > _sent(clients) / 100:
        raise BenchmarkError(f"Too many answers were not what they should be: {dict(wrong)}.")


def _sample(running: RunningStack) -> dict[str, float]:
    """Return the resident memory of each process by its role, the size of the journal, and what waits in it."""
    path = EnginePath(OURS, running.api[1], running.process.pid)
    journal = sum(file.stat().st_size for file in (running.data_dir / "journal").glob("journal.sqlite3*"))
    return resident(running) | {JOURNAL: journal / 2**20, PENDING: float(path.pending())}


@dataclass(frozen=True, slots=True)
class Trend:
    """How something goes on during a run: the means of the last three quarters of its samples, and the slope of the
    second half, for each 100,000 requests."""

    second_quarter: float
    third_quarter: float
    last_quarter: float
    slope: float

    @property
    def is_flat(self) -> bool:
        """Whether the last quarter is not more than the third but for what counts as none."""
        return self.last_quarter - self.third_quarter <= max(FLAT_MEGABYTES, FLAT_SHARE * self.third_quarter)


def trend(requests: Sequence[float], values: Sequence[float]) -> Trend:
    """Return the trend of samples that were taken after so many requests. Raises ValueError for less than eight."""
    count = min(len(values), len(requests))
    if count < 8:
        raise ValueError("A trend needs eight samples.")
    places, later = requests[-count:], values[-count:]
    slope, _ = statistics.linear_regression(places[count // 2 :], later[count // 2 :])
    ends = count // 4, count // 2, count * 3 // 4, count
    second, third, last = (statistics.fmean(later[start:end]) for start, end in pairwise(ends))
    return Trend(second, third, last, slope * 100_000)


def memory_series(figures: Figures) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the samples in MB by step and by what they are of: after so many requests so much."""
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for figure in figures:
        if figure.scenario == SCENARIO and figure.unit == "MB":
            requests = figures.find(SCENARIO, figure.case, figure.path, "requests")
            points = [] if requests is None else list(zip(requests.values, figure.values, strict=False))
            series.setdefault(f"{figure.case}, {figure.path}", {})[figure.name] = points
    return series


def render_soak(figures: Figures) -> str:
    """Return the samples of each step, and below them what became of each process."""
    steps = dict.fromkeys((figure.case, figure.path) for figure in figures if figure.scenario == SCENARIO)
    return "\n\n".join(_render_step(figures, case, path) for case, path in steps)


def _render_step(figures: Figures, case: str, path: str) -> str:
    found = [figure for figure in figures if (figure.scenario, figure.case, figure.path) == (SCENARIO, case, path)]
    named = {figure.name: figure for figure in found}
    if "rate" not in named:
        return f"{case}, {path}: interrupted after {named['requests'].values[-1]:,.0f} requests"
    requests, rate = named.pop("requests").values, named.pop("rate").median
    rows: list[list[str]] = []
    for number, place in enumerate(requests):
        cells = (figure.values[number] if number < len(figure.values) else None for figure in named.values())
        rows.append([f"{place:,.0f}", *("" if cell is None else format_number(cell) for cell in cells)])
    units = [f"{figure.name}, {figure.unit}" if figure.unit else figure.name for figure in named.values()]
    heads = [f"{case}, {path}: requests", *units]
    trends = [trend(requests, figure.values) for figure in named.values()]
    rows += [
        ["second quarter", *(format_number(each.second_quarter) for each in trends)],
        ["third quarter", *(format_number(each.third_quarter) for each in trends)],
        ["last quarter", *(format_number(each.last_quarter) for each in trends)],
        ["slope of the second half, for 100,000", *(format_number(each.slope) for each in trends)],
    ]
    verdicts = ("flat" if each.is_flat else "grows" for each in trends)
    sizes = (figure.unit == "MB" for figure in named.values())
    rows.append(
        [
            f"at {rate:.0f} requests a second",
            *(word if is_size else "" for word, is_size in zip(verdicts, sizes, strict=True)),
        ]
    )
    return tabulate(rows, headers=heads, disable_numparse=True)
