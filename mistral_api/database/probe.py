"""Whether PostgreSQL answers, how fast, and whether its schema is the one this code expects."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

# A health check waits no longer than this for a database that does not answer.
CHECK_SECONDS = 1.5

DatabaseHealth = dict[str, Any]


@functools.cache
def head_revision(migrations: Path) -> str | None:
    """The newest revision in the migrations folder."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    return ScriptDirectory.from_config(config).get_current_head()


class DatabaseProbe:
    """Asks PostgreSQL how it is, in a thread of its own: a hung database hangs no health check."""

    def __init__(self, engine: Engine, migrations: Path) -> None:
        self._engine = engine
        self._migrations = migrations
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database-probe")
        self._lock = threading.Lock()
        self._asking: Future[DatabaseHealth] | None = None

    def check(self) -> DatabaseHealth:
        """``{"status": "ok" | "unavailable", "latency_ms", "schema": "current" | "behind" | None}``."""
        with self._lock:
            if self._asking is None or self._asking.done():
                self._asking = self._executor.submit(self._ask)
            asking = self._asking
        try:
            return asking.result(timeout=CHECK_SECONDS)
        except (NotYet, SQLAlchemyError):
            return {"status": "unavailable", "latency_ms": None, "schema": None}

    def _ask(self) -> DatabaseHealth:
        with self._engine.connect() as connection:
            began = time.monotonic()
            connection.execute(text("SELECT 1"))
            latency = (time.monotonic() - began) * 1000
            try:
                revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
            except ProgrammingError:  # never migrated: the table is not there
                revision = None
        current = revision == head_revision(self._migrations)
        return {"status": "ok", "latency_ms": round(latency, 3), "schema": "current" if current else "behind"}

    def close(self) -> None:
        """End the thread; a question still open is left to its own deadline."""
        self._executor.shutdown(wait=False, cancel_futures=True)
