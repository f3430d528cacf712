"""The recorder: takes each finished exchange into the journal and wakes the writer."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from mistral_api.exchange import Exchange
from mistral_api.recording.journal import Journal
from mistral_api.recording.writer import Writer

log = logging.getLogger(__name__)

POLL_SECONDS = 0.01
WARN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for PostgreSQL. ``healthy`` is false while the journal itself cannot be written."""

    pending: int
    oldest_pending_seconds: float | None
    healthy: bool


class Recorder:
    """Owns the journal and the writer from :meth:`start` to :meth:`close`."""

    def __init__(self, folder: Path, engine: Engine, *, store_content: bool, retention_days: int) -> None:
        self._folder = folder
        self._engine = engine
        self._store_content = store_content
        self._retention_days = retention_days
        self._lock = threading.Lock()
        self._journal: Journal | None = None
        self._writer: Writer | None = None
        self._healthy = True
        self._warned_at = float("-inf")

    def start(self) -> None:
        """Open the journal and begin delivering. Does nothing the second time. Raises OSError."""
        with self._lock:
            if self._journal is not None:
                return
            try:
                self._journal = Journal(self._folder)
            except sqlite3.Error as error:
                raise OSError(f"the journal in {self._folder} cannot be opened: {error}") from error
            self._writer = Writer(self._journal, self._engine, self._retention_days)
            self._writer.start()

    def record(self, exchange: Exchange) -> None:
        """Journal a finished exchange. A disk that fails costs the record, never the answer."""
        if not self._store_content:
            exchange.messages = exchange.answers = None
        journal, writer = self._running()
        try:
            journal.append(exchange)
            self._healthy = True
        except sqlite3.Error as error:
            self._healthy = False
            self._warn(error)
        writer.notify()

    def _running(self) -> tuple[Journal, Writer]:
        if self._journal is None or self._writer is None:
            raise RuntimeError("the recorder has not been started")
        return self._journal, self._writer

    def _warn(self, error: Exception) -> None:
        """One warning a minute: a full disk must not be filled with warnings."""
        if time.monotonic() - self._warned_at >= WARN_SECONDS:
            self._warned_at = time.monotonic()
            log.error("exchanges are not being recorded: the journal cannot be written: %s", error)

    def wait_for_session(self, owner: str, session_id: str, seconds: float) -> bool:
        """Wait until PostgreSQL has all that was said in a session; False when it takes longer."""
        journal, writer = self._running()
        deadline = time.monotonic() + seconds
        while journal.has_session(owner, session_id):
            writer.hurry()
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def backlog(self) -> Backlog:
        """How much waits, and since when."""
        journal, _ = self._running()
        count, oldest = journal.pending()
        age = None if oldest is None else max(0.0, time.time() - oldest)
        return Backlog(count, age, self._healthy)

    def close(self, seconds: float = 5.0) -> None:
        """Deliver what can be delivered in so many seconds; the rest stays in the journal."""
        with self._lock:
            if self._writer is not None:
                self._writer.close(seconds)
            if self._journal is not None:
                self._journal.close()
            self._journal = self._writer = None
