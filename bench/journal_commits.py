"""Measure the journal: openings and outcomes that are written at once, with JOURNAL_SYNC=normal and full.

Their disk is that of temporary files (TMPDIR).
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from mistral_api.event_loop.loop import EventLoop
from mistral_api.recording.checkpoints import CheckpointThread
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.journal import Journal, prepare_journal
from mistral_api.system.identifiers import new_id

WRITERS = (1, 16, 64)
SECONDS = 2.0
_TIMEOUT_SECONDS = 60.0


def measure_commits() -> None:
    """Print how many writes a second there are from threads and from tasks of an event loop, and how long one takes."""
    for synced in (False, True):
        for writers in WRITERS:
            for run in (_run_threads, _run_tasks):
                with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as name:
                    _measure(Path(name), run, writers, synced=synced)


def _measure(folder: Path, run: Callable[[int, Callable[[], None]], None], writers: int, *, synced: bool) -> None:
    with closing(Journal(prepare_journal(folder, alone=True), "bench", synced=synced)) as journal:
        checkpoints = CheckpointThread(journal)
        checkpoints.start()
        times: list[float] = []
        until = time.perf_counter() + SECONDS
        cpu = time.process_time()
        run(writers, lambda: _write(journal, times, until))
        cpu = time.process_time() - cpu
        checkpoints.close()
    times.sort()
    print(
        f"journal, JOURNAL_SYNC={'full' if synced else 'normal'}, {writers} {run.__name__.removeprefix('_run_')}: "
        f"{len(times) / SECONDS:.0f} writes a second; median {statistics.median(times) * 1000:.2f} ms, 99 % "
        f"{times[len(times) * 99 // 100] * 1000:.2f} ms; {cpu / len(times) * 1e6:.0f} µs of processor time each",
        flush=True,
    )


def _write(journal: Journal, times: list[float], until: float) -> None:
    """Write openings and outcomes, one after the other, until a moment, and note how long each takes."""
    while (began := time.perf_counter()) < until:
        exchange = _exchange()
        position = journal.begin(exchange)
        begun = time.perf_counter()
        journal.end(position, exchange)
        times += (begun - began, time.perf_counter() - begun)


def _run_threads(writers: int, write: Callable[[], None]) -> None:
    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=_TIMEOUT_SECONDS)


def _run_tasks(writers: int, write: Callable[[], None]) -> None:
    loop = EventLoop()
    ended = threading.Semaphore(0)

    def run() -> None:
        write()
        ended.release()

    for _ in range(writers):
        loop.spawn(run)
    thread = threading.Thread(target=loop.run)
    thread.start()
    for _ in range(writers):
        ended.acquire(timeout=_TIMEOUT_SECONDS)
    loop.stop()
    thread.join(timeout=_TIMEOUT_SECONDS)


def _exchange() -> Exchange:
    return Exchange(
        id=new_id(),
        created_at=datetime.now(UTC),
        endpoint="/v1/chat/completions",
        owner="local",
        session_id="bench",
        model="mistral-7b-instruct",
        messages=[{"role": "user", "content": "What is the weather like, and what to wear?"}],
        answers=[{"content": "It is a fine day with some clouds and a light wind from the west; take a jacket. " * 3}],
        prompt_tokens=40,
        completion_tokens=60,
        latency_ms=900.0,
        time_to_first_token_ms=30.0,
        tokens_per_second=60.0,
        finish_reason="stop",
    )
