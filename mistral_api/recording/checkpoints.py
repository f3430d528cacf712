"""The thread that writes down, twice a second, how far every answer is that is being streamed.

It also moves SQLite's WAL into the journal's file, which costs an fsync that no request should wait for.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mistral_api.recording.journal import Journal, connect

log = logging.getLogger(__name__)

# What a killed process had streamed before is recorded; it may be this much older, and a moment.
CHECKPOINT_SECONDS = 0.5

LARGE_WAL = 32 << 20

# Gives the outcome so far in the journal's form, or None where nothing has changed since it was asked last.
Progress = Callable[[], bytes | None]


class CheckpointThread:
    """Owns the thread from :meth:`start` to :meth:`close`."""

    def __init__(self, journal: Journal, path: Path) -> None:
        self._journal = journal
        self._path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._lock = threading.Lock()
        self._open: dict[int, Progress] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, position: int, progress: Progress) -> None:
        """Look after an open exchange until :meth:`discard`."""
        with self._lock:
            self._open[position] = progress

    def discard(self, position: int) -> None:
        """The exchange has ended."""
        with self._lock:
            self._open.pop(position, None)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        with closing(connect(self._path)) as connection:
            while not self._closing.wait(CHECKPOINT_SECONDS):
                try:
                    self._write()
                    self._empty_wal(connection)
                except sqlite3.Error as error:  # the recorder warns of a disk that fails
                    log.debug("no checkpoint: %s", error)

    def _empty_wal(self, connection: sqlite3.Connection) -> None:
        """Without holding anybody up, unless they write so fast that it would grow and grow."""
        large = self._wal.exists() and self._wal.stat().st_size > LARGE_WAL
        connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if large else 'PASSIVE'})").fetchall()

    def _write(self) -> None:
        with self._lock:
            progress = list(self._open.items())
        outcomes = [(position, outcome) for position, ask in progress if (outcome := ask()) is not None]
        if outcomes:
            self._journal.checkpoint(outcomes)
