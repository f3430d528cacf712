"""The monthly partitions of ``api_usage``: each exists before the first row of its month is inserted."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from mistral_api.analytics.periods import next_month, start_of

log = logging.getLogger(__name__)

# Months to come that have their partition already.
MONTHS_AHEAD = 2
# Two processes must not create the same partition at the same time.
_ADVISORY_LOCK = 9001
_PREFIX = "api_usage_"


def partition_name(month: datetime) -> str:
    """Return ``api_usage_2026_11`` for November 2026."""
    return f"{_PREFIX}{month:%Y_%m}"


def month_of_partition(name: str) -> datetime | None:
    """Return the month of a partition, or None for the default one."""
    try:
        return datetime.strptime(name, f"{_PREFIX}%Y_%m").replace(tzinfo=UTC)
    except ValueError:
        return None


def coming_months(now: datetime) -> list[datetime]:
    """Return the current month and those for which partitions are created ahead."""
    months = [start_of("month", now)]
    for _ in range(MONTHS_AHEAD):
        months.append(next_month(months[-1]))
    return months


def list_partitions(connection: Connection) -> list[str]:
    """Return the names of all partitions."""
    query = (
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'api_usage'::regclass ORDER BY c.relname"
    )
    return list(connection.scalars(text(query)))


def create_partitions(connection: Connection, months: Iterable[datetime]) -> None:
    """Create the partitions of these months where they are missing, in the connection's transaction."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
    existing = set(list_partitions(connection))
    for month in months:
        if partition_name(month) in existing:
            continue
        try:
            with connection.begin_nested():
                connection.execute(
                    text(
                        f"CREATE TABLE IF NOT EXISTS {partition_name(month)} PARTITION OF api_usage "
                        f"FOR VALUES FROM ('{month.isoformat()}') TO ('{next_month(month).isoformat()}')"
                    )
                )
        except IntegrityError:
            # The default partition has rows of that month already. They stay there, and so do new ones.
            log.info("usage of %s stays in the default partition", month.strftime("%Y-%m"))
