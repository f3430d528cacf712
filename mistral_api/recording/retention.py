"""Forgetting what is older than RETENTION_DAYS: whole months of usage at once, the rest in small batches.

The sums in ``usage_rollups`` and ``usage_series`` stay. Every step is a transaction of its own, so that
no lock is held for long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, TextClause, text

from mistral_api.analytics.periods import next_month, start_of
from mistral_api.recording.partitions import month_of_partition, partitions

BATCH = 100
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
class Pruned:
    """What was deleted: conversations with their messages, months of usage, and single usage rows."""

    conversations: int
    partitions: int
    usage_rows: int

    def __str__(self) -> str:
        return (
            f"{self.conversations} conversations, {self.partitions} months of usage "
            f"and {self.usage_rows} more usage rows deleted"
        )


def prune_older_than(engine: Engine, days: int, stop: Callable[[], bool] = lambda: False) -> Pruned:
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
    return Pruned(conversations, dropped, usage)


def _delete(engine: Engine, statement: TextClause, before: datetime, stop: Callable[[], bool]) -> int:
    deleted = 0
    while not stop():
        with engine.begin() as connection:
            count = connection.execute(statement, {"before": before, "batch": BATCH}).rowcount
        deleted += count
        if count < BATCH:
            break
    return deleted


def _drop_partitions(engine: Engine, before: datetime, stop: Callable[[], bool]) -> int:
    """Drop every month that ended before."""
    with engine.connect() as connection:
        months = {name: month_of_partition(name) for name in partitions(connection)}
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
