"""The health of PostgreSQL: whether it answers, how fast, and whether its schema is the one that this code expects."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Literal, TypedDict

from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from mistral_api.database.revisions import newest_revision

# How long a health check waits for a database that does not answer.
CHECK_TIMEOUT_SECONDS = 1.5


class DatabaseHealth(TypedDict):
    """The part ``database`` of ``/health``. Latency and schema are null where PostgreSQL does not answer."""

    status: Literal["ok", "unavailable"]
    latency_ms: float | None
    schema: Literal["current", "behind"] | None


class DatabaseProbe:
    """Checks PostgreSQL in a thread of its own, so that a database that hangs does not hang a health check."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database-probe")
        self._lock = threading.Lock()
        self._running: Future[DatabaseHealth] | None = None

    def check(self) -> DatabaseHealth:
        """Return the health of PostgreSQL within CHECK_TIMEOUT_SECONDS. A check that still runs is waited for again."""
        with self._lock:
            if self._running is None or self._running.done():
                self._running = self._executor.submit(self._query)
            running = self._running
        try:
            return running.result(timeout=CHECK_TIMEOUT_SECONDS)
        except (FutureTimeoutError, SQLAlchemyError):
            return {"status": "unavailable", "latency_ms": None, "schema": None}

    def _query(self) -> DatabaseHealth:
        with self._engine.connect() as connection:
            began = time.monotonic()
            connection.execute(text("SELECT 1"))
            latency = (time.monotonic() - began) * 1000
            try:
                revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
            except ProgrammingError:  # never migrated: the table is not there
                revision = None
        current = revision == _head_revision()
        return {"status": "ok", "latency_ms": round(latency, 3), "schema": "current" if current else "behind"}

    def close(self) -> None:
        """End the thread. A query that still runs is left to its own deadline."""
        self._executor.shutdown(wait=False, cancel_futures=True)


@functools.cache
def _head_revision() -> str:
    """Return the newest revision, read once."""
    return newest_revision()
