"""Summing up all usage rows once more: ``mistral-api stats rebuild``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, delete, exists, func, select, text

from mistral_api.analytics.periods import PERIODS, start_of
from mistral_api.analytics.rollups import Rollups
from mistral_api.analytics.sessions import recount_sessions
from mistral_api.database.deadlines import without_deadline
from mistral_api.database.tables.usage import ApiUsage, UsagePruned, UsageRollup, UsageSeries, UsageSession

log = logging.getLogger(__name__)

FETCHED_TOGETHER = 5000
_FIRST = datetime(1, 1, 1, tzinfo=UTC)

_READ = [
    ApiUsage.created_at, ApiUsage.endpoint, ApiUsage.model, ApiUsage.owner, ApiUsage.status,
    ApiUsage.prompt_tokens, ApiUsage.cached_tokens, ApiUsage.completion_tokens, ApiUsage.latency_ms,
    ApiUsage.time_to_first_token_ms, ApiUsage.tokens_per_second,
]  # fmt: skip


def rebuild_rollups(engine: Engine, progress: Callable[[int], None] = lambda _rows: None) -> int:
    """Sum up the usage rows anew; answer how many there were. ``progress`` hears of each lot of rows read.

    All in one transaction: readers see the old sums until it is done, and writers wait. Sums of hours whose
    rows have been pruned stay as they are. Raises sqlalchemy.exc.SQLAlchemyError.
    """
    with engine.begin() as connection, without_deadline(connection):
        connection.execute(text("LOCK TABLE usage_rollups, usage_series, usage_sessions IN SHARE ROW EXCLUSIVE MODE"))
        since = connection.scalar(select(func.max(UsagePruned.before))) or _FIRST
        _forget(connection, since)
        _keep_pruned_hours(connection, since)
        return _sum_up(connection, since, progress)


def count_rows(engine: Engine) -> int:
    """How many usage rows there are. Raises sqlalchemy.exc.SQLAlchemyError."""
    with engine.begin() as connection, without_deadline(connection):
        return connection.scalar(select(func.count()).select_from(ApiUsage)) or 0


def rebuild_if_never_built(engine: Engine) -> None:
    """Sum up the rows of a database that is older than the sums. Raises sqlalchemy.exc.SQLAlchemyError."""
    with engine.connect() as connection:
        never_built = connection.scalar(
            select(exists(select(ApiUsage.request_id)) & ~exists(select(UsageRollup.start)))
        )
    if never_built:
        log.info("usage statistics: %d rows summed up", rebuild_rollups(engine))


def _forget(connection: Connection, since: datetime) -> None:
    """Delete the sums of every period that ends after ``since``, which is the beginning of an hour."""
    for table in (UsageRollup, UsageSeries):
        for period in PERIODS:
            connection.execute(delete(table).where(table.period == period, table.start >= start_of(period, since)))
    connection.execute(delete(UsageSession).where(UsageSession.last_hour >= since))


def _keep_pruned_hours(connection: Connection, since: datetime) -> None:
    """The day and the month that ``since`` divides begin with hours whose rows are gone: add those hours' sums."""
    if since == _FIRST:
        return
    day, month = start_of("day", since), start_of("month", since)
    for start, end, periods in ((month, day, ("month",)), (day, since, ("day", "month"))):
        hours = Rollups()
        hours.add_sums(
            connection.execute(select(UsageRollup.__table__).where(*_hours(UsageRollup, start, end))),
            connection.execute(select(UsageSeries.__table__).where(*_hours(UsageSeries, start, end))),
        )
        hours.write(connection, periods)


def _hours(table: type[UsageRollup | UsageSeries], start: datetime, end: datetime) -> list[ColumnElement[bool]]:
    return [table.period == "hour", table.start >= start, table.start < end]


def _sum_up(connection: Connection, since: datetime, progress: Callable[[int], None]) -> int:
    """Read the rows once, in their order, and write the sums of each month when it is over."""
    found = connection.execute(
        select(*_READ).where(ApiUsage.created_at >= since).order_by(ApiUsage.created_at),
        execution_options={"yield_per": FETCHED_TOGETHER},
    )
    rollups, month, count = Rollups(), _FIRST, 0
    for rows in found.partitions():
        if start_of("month", rows[0].created_at) != month:
            rollups.write(connection)
            rollups, month = Rollups(), start_of("month", rows[0].created_at)
        for row in rows:
            rollups.add(row)
        count += len(rows)
        progress(len(rows))
    rollups.add_sessions(recount_sessions(connection, since))
    rollups.write(connection)
    return count
