"""The health of PostgreSQL: whether it answers, how fast, and whether its schema is the one that this code expects."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Literal, NotRequired, TypedDict

from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from mistral_api.database.address import shown_address
from mistral_api.database.errors import error_message
from mistral_api.database.revisions import newest_revision

# How long a health check waits for a database that does not answer.
CHECK_TIMEOUT_SECONDS = 1.5


class DatabaseHealth(TypedDict):
    """The part ``database`` of ``/health``. Latency and schema are null where PostgreSQL does not answer.

    ``last_error`` says which database cannot be used, and why; it is null where one can, and strangers do not get it.
    """

    status: Literal["ok", "unavailable"]
    latency_ms: float | None
    schema: Literal["current", "behind"] | None
    last_error: NotRequired[str | None]


class DatabaseProbe:
    """Checks PostgreSQL in a thread of its own, so that a database that hangs does not hang a health check."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._address = shown_address(engine.url)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database-probe")
        self._lock = threading.Lock()
        self._running: Future[DatabaseHealth] | None = None
        # A check that somebody has waited for in vain: nobody else waits for it.
        self._overdue: Future[DatabaseHealth] | None = None

    def check(self) -> DatabaseHealth:
        """Return the health of PostgreSQL within CHECK_TIMEOUT_SECONDS.

        A check that takes longer is waited for once: until it has ended, others are told at once.
        """
        with self._lock:
            if self._running is None or self._running.done():
                self._running = self._executor.submit(self._query)
            running = self._running
        try:
            return running.result(timeout=0 if running is self._overdue else CHECK_TIMEOUT_SECONDS)
        except FutureTimeoutError:
            self._overdue = running
            return _unavailable(f"{self._address}: it did not answer within {CHECK_TIMEOUT_SECONDS:g} s")
        except SQLAlchemyError as error:
            return _unavailable(error_message(error))

    def _query(self) -> DatabaseHealth:
        with self._engine.connect() as connection:
            began = time.monotonic()
            connection.execute(text("SELECT 1"))
            latency = (time.monotonic() - began) * 1000
            try:
                revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
            except ProgrammingError:  # never migrated: the table is not there
                revision = None
        newest = newest_revision()
        error = None if revision == newest else f"{self._address}: the schema is {revision}, and not {newest}"
        schema: Literal["current", "behind"] = "current" if error is None else "behind"
        return {"status": "ok", "latency_ms": round(latency, 3), "schema": schema, "last_error": error}

    def close(self) -> None:
        """End the thread. A query that still runs is left to its own deadline."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _unavailable(reason: str) -> DatabaseHealth:
    return {"status": "unavailable", "latency_ms": None, "schema": None, "last_error": reason}
