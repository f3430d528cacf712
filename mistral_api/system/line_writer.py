"""Lines that a thread of their own writes: who logs or prints waits for no disk, no pipe and no terminal.

A pipe that nobody reads, a terminal that was stopped by Ctrl-S and a disk that hangs hold up the thread and nobody
else; the end of the process waits END_SECONDS for it. The queue is bounded: lines beyond it are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias
from weakref import WeakSet

log = logging.getLogger(__name__)

# So many lines wait at most: ten seconds of a server that answers a thousand requests a second.
MOST_WAITING = 10_000
# So many are written at once at most.
BATCH_LINES = 256
# Between two batches: a busy server wakes the thread 50 times a second, not with each line.
PAUSE_SECONDS = 0.02
# How long the end of a process waits for what has not been written.
END_SECONDS = 2.0

# What writes several lines, without waiting for a lock of who logs.
Write: TypeAlias = Callable[[Sequence[str]], None]
# A line, or what makes it, on the thread.
Line: TypeAlias = str | Callable[[], str]
_Lines: TypeAlias = "queue.SimpleQueue[tuple[Write, Line] | None]"


class LineWriter:
    """Owns the thread, which the first line starts, also in a forked child. Safe in signal handlers."""

    def __init__(self, name: str, place: str, most_waiting: int = MOST_WAITING) -> None:
        """``name``: that of the thread; ``place``: what it writes to, for the line about lines that were dropped."""
        self._name = name
        self._place = place
        self._most_waiting = most_waiting
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        # Reentrant, since a signal handler may log while it is held. Nothing waits while it is held.
        self._lock = threading.RLock()
        self._lines: _Lines = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._closed = False
        self._dropped = 0

    def begin_in_child(self) -> None:
        """Begin anew in a forked child: the thread, and the lines that wait, are the parent's."""
        self._begin()

    def put(self, write: Write, line: Line) -> None:
        """Have a line written after those that were put before. Never waits, and never fails."""
        with self._lock:
            if not self._closed:
                self._enqueue(write, line)
                return
        if self._thread is None:  # the process ends, and all that was put before is written
            _write_all([(write, line)])

    def _enqueue(self, write: Write, line: Line) -> None:
        if self._lines.qsize() >= self._most_waiting:
            self._dropped += 1
            return
        self._lines.put((write, line))
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, args=(self._lines,), name=self._name, daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads: the next line tries again, or the end of the process writes it
            self._thread = None

    def close(self, seconds: float = END_SECONDS) -> bool:
        """Write what waits, for so long at most. Return whether all is written.

        If it is, later lines are written by who puts them; otherwise they are dropped.
        """
        thread = self._thread
        if thread is not None and not self._closed:
            self._ending.set()
            self._lines.put(None)
            thread.join(seconds)
        with self._lock:
            self._closed = True
            if thread is not None and not thread.is_alive():
                self._thread = thread = None
        if thread is None:
            _write_all(_waiting(self._lines))
        return thread is None

    def _run(self, lines: _Lines) -> None:
        ending = False
        while not (ending and lines.empty()):
            first = lines.get()
            ending = ending or first is None
            batch = [] if first is None else [first]
            batch += _waiting(lines, BATCH_LINES)
            _write_all(batch)
            self._tell_dropped(lines)
            if lines.qsize() < BATCH_LINES:
                ending = self._ending.wait(PAUSE_SECONDS) or ending

    def _tell_dropped(self, lines: _Lines) -> None:
        if not self._dropped or lines.qsize() > self._most_waiting // 2:
            return
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        log.warning("%s took no lines for too long: %d lines are missing there", self._place, dropped)


def _waiting(lines: _Lines, most: int | None = None) -> list[tuple[Write, Line]]:
    """Take lines that wait out of the queue."""
    taken: list[tuple[Write, Line]] = []
    while most is None or len(taken) < most:
        try:
            line = lines.get_nowait()
        except queue.Empty:
            break
        if line is not None:
            taken.append(line)
    return taken


def _write_all(lines: Sequence[tuple[Write, Line]]) -> None:
    for write, group in groupby(lines, key=itemgetter(0)):
        try:
            write([_made(line) for _, line in group])
        except Exception:  # noqa: BLE001, S112 - what writes tells its own failures; lines must not end the thread
            continue


def _made(line: Line) -> str:
    """Return a line, or one that says that it cannot be made: those around it are written nevertheless."""
    try:
        return line if isinstance(line, str) else line()
    except Exception as error:  # noqa: BLE001 - arguments that do not fit a text, or that fail when they are shown
        return f"a line cannot be shown: {type(error).__name__}\n"


_writers: WeakSet[LineWriter] = WeakSet()


def _begin_in_child() -> None:
    for writer in list(_writers):
        writer.begin_in_child()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_begin_in_child)
