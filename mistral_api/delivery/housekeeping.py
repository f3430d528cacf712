"""Thread that makes partitions and deletes what is past RETENTION_DAYS.

Forgetting what is older than RETENTION_DAYS: whole months of usage at once, the rest in small batches.

The sums in ``usage_rollups`` and ``usage_series`` stay. Every step is a transaction of its own, so that
no lock is held for long.

The thread that keeps the database in order: partitions made ahead, what is old forgotten, sums made once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.analytics.periods import next_month, start_of
from mistral_api.analytics.rebuild import rebuild_if_never_built
from mistral_api.database.errors import error_summary
from mistral_api.delivery.partitions import coming_months, create_partitions, list_partitions, month_of_partition
from mistral_api.system.logs import ThrottledWarning

DELETE_BATCH = 100
# Dropping a partition locks the whole table for a moment: it gives up rather than hold everybody up.
LOCK_SECONDS = 3


def _delete_oldest(table: str, key: str, moment: str, locking: str = "") -> TextClause:
    """Delete the oldest rows, ``batch`` of those whose moment lies ``before``."""
    return text(
        f"DELETE FROM {table} WHERE ({key}) IN "
        f"(SELECT {key} FROM {table} WHERE {moment} < :before ORDER BY {moment} LIMIT :batch {locking})"
    )


# A conversation that the writer has locked is being used: it is not old any more.
_DELETE_CONVERSATIONS = _delete_oldest("conversations", "id", "updated_at", "FOR UPDATE SKIP LOCKED")
_DELETE_USAGE = _delete_oldest("api_usage", "request_id, created_at", "created_at")
_DELETE_SESSIONS = _delete_oldest("usage_sessions", "owner, session_id", "last_hour")
_REMEMBER = text(
    "WITH former AS (DELETE FROM usage_pruned RETURNING before) "
    "INSERT INTO usage_pruned SELECT greatest(:before, (SELECT max(before) FROM former))"
)


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was deleted: conversations with their messages, months of usage, and single usage rows."""

    conversations: int
    partitions: int
    usage_rows: int

    def __str__(self) -> str:
        return (
            f"{self.conversations} conversations, {self.partitions} months of usage "
            f"and {self.usage_rows} more usage rows deleted"
        )


def prune_older_than(engine: Engine, days: int, stop: Callable[[], bool] = lambda: False) -> PruneResult:
    """Delete conversations last used, and usage rows made, more than so many days ago (to the hour).

    ``stop`` is asked between two steps. Raises sqlalchemy.exc.SQLAlchemyError.
    """
    before = start_of("hour", datetime.now(UTC) - timedelta(days=days))
    conversations = _delete(engine, _DELETE_CONVERSATIONS, before, stop)
    # From here on the sums of these hours cannot be made again from rows.
    with engine.begin() as connection:
        connection.execute(_REMEMBER, {"before": before})
    dropped = _drop_partitions(engine, before, stop)
    usage = _delete(engine, _DELETE_USAGE, before, stop)
    _delete(engine, _DELETE_SESSIONS, before, stop)
    return PruneResult(conversations, dropped, usage)


def _delete(engine: Engine, statement: TextClause, before: datetime, stop: Callable[[], bool]) -> int:
    deleted = 0
    while not stop():
        with engine.begin() as connection:
            count = connection.execute(statement, {"before": before, "batch": DELETE_BATCH}).rowcount
        deleted += count
        if count < DELETE_BATCH:
            break
    return deleted


def _drop_partitions(engine: Engine, before: datetime, stop: Callable[[], bool]) -> int:
    """Drop every month that ended before."""
    with engine.connect() as connection:
        months = {name: month_of_partition(name) for name in list_partitions(connection)}
    old = [name for name, month in months.items() if month is not None and next_month(month) <= before]
    dropped = 0
    for name in old:
        if stop():
            break
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
        dropped += 1
    return dropped


log = logging.getLogger(__name__)

EVERY_SECONDS, TRY_AGAIN_SECONDS = 3600.0, 30.0


class Housekeeping:
    """Owns the thread from :meth:`start` to :meth:`close`."""

    def __init__(self, engine: Engine, retention_days: int, forget: Callable[[int], None]) -> None:
        """0 days keep everything; ``forget`` removes what is kept elsewhere of conversations older than so many."""
        self._forget = forget
        self._engine = engine
        self._retention_days = retention_days
        self._complain = ThrottledWarning(log)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin; the first round is made at once."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; what it is at stops after its current step."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def _run(self) -> None:
        wait = 0.0
        while not self._closing.wait(wait):
            try:
                self._tidy()
                wait = EVERY_SECONDS
            except SQLAlchemyError as error:
                self._complain("housekeeping waits for the database: %s", error_summary(error))
                wait = TRY_AGAIN_SECONDS

    def _tidy(self) -> None:
        with self._engine.begin() as connection:
            create_partitions(connection, coming_months(datetime.now(UTC)))
        rebuild_if_never_built(self._engine)
        if self._retention_days:
            pruned = prune_older_than(self._engine, self._retention_days, stop=self._closing.is_set)
            self._forget(self._retention_days)
            log.info("retention of %d days: %s", self._retention_days, pruned)
