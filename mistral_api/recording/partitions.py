"""The monthly partitions of ``api_usage``: each exists before the first row of its month is inserted."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

log = logging.getLogger(__name__)

# Two processes must not make the same partition at the same time.
_LOCK = 9001


def month_of(moment: datetime) -> datetime:
    """The first instant of a moment's month, in UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(month: datetime) -> datetime:
    """The first instant of the month after."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def partition_name(month: datetime) -> str:
    """``api_usage_2026_11`` for November 2026."""
    return f"api_usage_{month:%Y_%m}"


def create_partitions(connection: Connection, months: Iterable[datetime]) -> None:
    """Make the partitions of these months where they are missing, in the connection's transaction."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    for month in months:
        try:
            with connection.begin_nested():
                connection.execute(
                    text(
                        f"CREATE TABLE IF NOT EXISTS {partition_name(month)} PARTITION OF api_usage "
                        f"FOR VALUES FROM ('{month.isoformat()}') TO ('{next_month(month).isoformat()}')"
                    )
                )
        except IntegrityError:
            # The default partition already has rows of that month: they, and new ones, stay there.
            log.info("usage of %s stays in the default partition", month.strftime("%Y-%m"))
