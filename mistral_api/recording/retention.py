"""Forgetting what is older than RETENTION_DAYS, a small batch at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

BATCH = 500

_STATEMENTS = (
    "DELETE FROM conversations WHERE id IN "
    "(SELECT id FROM conversations WHERE updated_at < :before ORDER BY updated_at LIMIT :batch)",
    "DELETE FROM api_usage WHERE (request_id, created_at) IN (SELECT request_id, created_at "
    "FROM api_usage WHERE created_at < :before ORDER BY created_at LIMIT :batch)",
)


def prune(engine: Engine, days: int) -> int:
    """Delete conversations and usage rows older than so many days; answer how many rows went."""
    before = datetime.now(UTC) - timedelta(days=days)
    return sum(_delete(engine, statement, before) for statement in _STATEMENTS)


def _delete(engine: Engine, statement: str, before: datetime) -> int:
    """Each batch in a transaction of its own: no lock is held for long."""
    deleted = 0
    while True:
        with engine.begin() as connection:
            count = connection.execute(text(statement), {"before": before, "batch": BATCH}).rowcount
        deleted += count
        if count < BATCH:
            return deleted
