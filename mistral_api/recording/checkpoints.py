"""The thread that journals the progress of open exchanges, twice a second.

It goes through them in small steps with pauses between, so that a thousand open streams never hold up a request for
longer than a few of them do. Where they are long, they are written less often: there is a limit of bytes a second.

It also moves SQLite's WAL into the journal's file. That costs an fsync, which no request should wait for.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing

from mistral_api.recording.journal import Journal, connect

log = logging.getLogger(__name__)

# After a kill, what is recorded of a stream is about this much older than what its client got.
CHECKPOINT_SECONDS = 0.5
# A round over all open exchanges takes longer where it writes more than this allows.
MAX_BYTES_PER_SECOND = 16 << 20
# So many exchanges are asked for their progress in one step: about a millisecond.
STEP_EXCHANGES = 16
STEP_PAUSE_SECONDS = 0.005
# A transaction writes at most so many of them, or a little more than so many bytes.
WRITE_EXCHANGES, WRITE_BYTES = 64, 1 << 18
# A WAL that has grown to so many bytes is begun anew. Else it goes on growing where requests never pause.
LARGE_WAL_BYTES = 16 << 20
_WAL_FRAME_BYTES = 4096 + 24
# How long requests may be held up for that; where readers are in the way, it is tried again.
RESTART_SECONDS = 0.05

# Returns the outcome so far as JSON, or None where nothing has changed since the last call.
Progress = Callable[[], bytes | None]


class CheckpointThread:
    """Owns the thread from :meth:`start` to :meth:`close`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # Changed by requests and copied by the thread, each in one step of the interpreter.
        self._open: dict[int, Progress] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, position: int, progress: Progress) -> None:
        """Checkpoint the exchange at a position of the journal until :meth:`discard`."""
        self._open[position] = progress

    def discard(self, position: int) -> None:
        """Stop checkpointing an exchange: it has ended."""
        self._open.pop(position, None)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        with closing(connect(self._journal.path, synced=self._journal.synced)) as connection:
            connection.execute(f"PRAGMA busy_timeout={RESTART_SECONDS * 1000:.0f}")
            pause = CHECKPOINT_SECONDS
            while not self._closing.wait(pause):
                began, size = time.monotonic(), 0
                try:
                    size = self._write_checkpoints()
                    _empty_wal(connection)
                except sqlite3.Error as error:  # the recorder warns of a disk that fails
                    log.debug("no checkpoint: %s", error)
                round_seconds = max(CHECKPOINT_SECONDS, size / MAX_BYTES_PER_SECOND)
                pause = max(round_seconds - (time.monotonic() - began), 0.0) if self._open else CHECKPOINT_SECONDS

    def _write_checkpoints(self) -> int:
        """Write the progress of all open exchanges, step by step. Return its bytes. Raises sqlite3.Error."""
        exchanges = list(self._open.copy().items())
        pause = min(STEP_PAUSE_SECONDS, CHECKPOINT_SECONDS * STEP_EXCHANGES / max(1, len(exchanges)))
        outcomes: list[tuple[int, bytes]] = []
        written = size = 0
        for start in range(0, len(exchanges), STEP_EXCHANGES):
            if start and self._closing.wait(pause):
                break
            for position, progress in exchanges[start : start + STEP_EXCHANGES]:
                if (outcome := progress()) is not None:
                    outcomes.append((position, outcome))
                    size += len(outcome)
            if len(outcomes) >= WRITE_EXCHANGES or size >= WRITE_BYTES:
                self._journal.write_checkpoints(outcomes)
                written, size, outcomes = written + size, 0, []
        if outcomes:
            self._journal.write_checkpoints(outcomes)
        return written + size


def _empty_wal(connection: sqlite3.Connection) -> None:
    """Move the WAL into the journal's file, beside requests that write to it.

    Only where it has grown large they are held up, for what they have written meanwhile: the next one then begins at
    its start. Its file keeps the size, so that writes need not lengthen it: that makes an fsync cheaper.
    """
    _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if frames * _WAL_FRAME_BYTES > LARGE_WAL_BYTES:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
