"""The thread that journals the progress of open exchanges, twice a second.

It also moves SQLite's WAL into the journal's file. That costs an fsync, which no request should wait for.
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

# After a kill, what is recorded of a stream is about this much older than what its client got.
CHECKPOINT_SECONDS = 0.5

LARGE_WAL_BYTES = 32 << 20

# Returns the outcome so far as JSON, or None where nothing has changed since the last call.
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
        """Start the thread."""
        self._thread.start()

    def add(self, position: int, progress: Progress) -> None:
        """Checkpoint the exchange at a position of the journal until :meth:`discard`."""
        with self._lock:
            self._open[position] = progress

    def discard(self, position: int) -> None:
        """Stop checkpointing an exchange: it has ended."""
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
                    self._write_checkpoints()
                    self._empty_wal(connection)
                except sqlite3.Error as error:  # the recorder warns of a disk that fails
                    log.debug("no checkpoint: %s", error)

    def _empty_wal(self, connection: sqlite3.Connection) -> None:
        """Move the WAL into the journal's file. Requests are held up only where the WAL has grown large."""
        large = self._wal.exists() and self._wal.stat().st_size > LARGE_WAL_BYTES
        connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if large else 'PASSIVE'})").fetchall()

    def _write_checkpoints(self) -> None:
        with self._lock:
            exchanges = list(self._open.items())
        outcomes = [(position, outcome) for position, progress in exchanges if (outcome := progress()) is not None]
        if outcomes:
            self._journal.write_checkpoints(outcomes)
