"""Housekeeping: a thread creates partitions ahead, completes the search, and deletes what is older than RETENTION_DAYS.

Whole months of usage are deleted at once, everything else in small batches. Every step is a transaction of its own,
so that no lock is held for long. The sums in ``usage_rollups`` and ``usage_series`` stay.
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
from mistral_api.database.errors import warn_of_absence
from mistral_api.delivery.partitions import coming_months, create_partitions, list_partitions, month_of_partition
from mistral_api.delivery.search_backfill import SearchCompletion
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

INTERVAL_SECONDS, RETRY_SECONDS = 3600.0, 30.0
DELETE_BATCH = 100
# Dropping a partition locks the whole table. If it cannot get the lock in this time, it gives up, so that others do
# not have to wait behind it.
LOCK_TIMEOUT_SECONDS = 3


def _delete_oldest(table: str, key: str, moment: str, locking: str = "") -> TextClause:
    """Return the statement that deletes ``batch`` of the rows whose ``moment`` lies ``before``, the oldest first."""
    return text(
        f"DELETE FROM {table} WHERE ({key}) IN "
        f"(SELECT {key} FROM {table} WHERE {moment} < :before ORDER BY {moment} LIMIT :batch {locking})"
    )


# A conversation that the writer has locked is in use, so it is not old any more.
_DELETE_CONVERSATIONS = _delete_oldest("conversations", "id", "updated_at", "FOR UPDATE SKIP LOCKED")
_DELETE_USAGE = _delete_oldest("api_usage", "request_id, created_at", "created_at")
_DELETE_SESSIONS = _delete_oldest("usage_sessions", "owner, session_id", "last_hour")
_SET_PRUNED_BEFORE = text(
    "WITH former AS (DELETE FROM usage_pruned RETURNING before) "
    "INSERT INTO usage_pruned SELECT greatest(:before, (SELECT max(before) FROM former))"
)


class Housekeeping:
    """Owns the thread from :meth:`start` to :meth:`close`."""

    def __init__(self, engine: Engine, retention_days: int, delete_elsewhere: Callable[[int], None]) -> None:
        """``retention_days`` 0 keeps everything.

        ``delete_elsewhere`` takes the days and deletes what is held of older conversations outside PostgreSQL.
        """
        self._delete_elsewhere = delete_elsewhere
        self._engine = engine
        self._retention_days = retention_days
        self._warn = ThrottledWarning(log)
        self._closing = threading.Event()
        self._search = SearchCompletion(engine, self._closing.wait)
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Start the thread. Its first round is at once."""
        self._thread.start()

    def close(self) -> None:
        """End the thread. A round that is under way stops after its current step."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def _run(self) -> None:
        wait = 0.0
        while not self._closing.wait(wait):
            try:
                self._run_once()
                wait = INTERVAL_SECONDS
            except SQLAlchemyError as error:
                warn_of_absence(self._warn, "housekeeping waits for the database", error)
                wait = RETRY_SECONDS

    def _run_once(self) -> None:
        with self._engine.begin() as connection:
            create_partitions(connection, coming_months(datetime.now(UTC)))
        rebuild_if_never_built(self._engine)
        if self._retention_days:
            result = prune_older_than(self._engine, self._retention_days, stop=self._closing.is_set)
            self._delete_elsewhere(self._retention_days)
            log.info("retention of %d days: %s", self._retention_days, result)
        self._search.run()


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
    """Delete conversations last used, and usage rows created, more than ``days`` ago (to the hour).

    ``stop`` is called between two steps and ends the work early. Raises sqlalchemy.exc.SQLAlchemyError.
    """
    before = start_of("hour", datetime.now(UTC) - timedelta(days=days))
    conversations = _delete_batches(engine, _DELETE_CONVERSATIONS, before, stop)
    # From here on the sums of these hours cannot be computed from rows again.
    with engine.begin() as connection:
        connection.execute(_SET_PRUNED_BEFORE, {"before": before})
    partitions = _drop_partitions(engine, before, stop)
    usage_rows = _delete_batches(engine, _DELETE_USAGE, before, stop)
    _delete_batches(engine, _DELETE_SESSIONS, before, stop)
    return PruneResult(conversations, partitions, usage_rows)


def _delete_batches(engine: Engine, statement: TextClause, before: datetime, stop: Callable[[], bool]) -> int:
    deleted = 0
    while not stop():
        with engine.begin() as connection:
            count = connection.execute(statement, {"before": before, "batch": DELETE_BATCH}).rowcount
        deleted += count
        if count < DELETE_BATCH:
            break
    return deleted


def _drop_partitions(engine: Engine, before: datetime, stop: Callable[[], bool]) -> int:
    """Drop the partition of every month that ended before a moment. Return how many."""
    with engine.connect() as connection:
        months = {name: month_of_partition(name) for name in list_partitions(connection)}
    old = [name for name, month in months.items() if month is not None and next_month(month) <= before]
    dropped = 0
    for name in old:
        if stop():
            break
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
            connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
        dropped += 1
    return dropped
