"""Computing all sums again from the usage rows: ``mistral-api stats rebuild``."""

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

FETCH_BATCH = 5000
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)

_USAGE_COLUMNS = [
    ApiUsage.created_at, ApiUsage.endpoint, ApiUsage.model, ApiUsage.owner, ApiUsage.status,
    ApiUsage.prompt_tokens, ApiUsage.cached_tokens, ApiUsage.completion_tokens, ApiUsage.latency_ms,
    ApiUsage.time_to_first_token_ms, ApiUsage.tokens_per_second,
]  # fmt: skip


def rebuild_rollups(engine: Engine, progress: Callable[[int], None] = lambda _rows: None) -> int:
    """Compute the sums again and return how many usage rows there are. ``progress`` takes the size of each batch.

    It is one transaction: readers see the old sums until the end, and writers wait. Sums of hours whose rows have been
    pruned stay as they are. Raises sqlalchemy.exc.SQLAlchemyError.
    """
    with engine.begin() as connection, without_deadline(connection):
        connection.execute(text("LOCK TABLE usage_rollups, usage_series, usage_sessions IN SHARE ROW EXCLUSIVE MODE"))
        since = connection.scalar(select(func.max(UsagePruned.before))) or _BEGINNING
        _delete_sums(connection, since)
        _add_pruned_hours(connection, since)
        return _sum_up_rows(connection, since, progress)


def count_rows(engine: Engine) -> int:
    """Return how many usage rows there are. Raises sqlalchemy.exc.SQLAlchemyError."""
    with engine.begin() as connection, without_deadline(connection):
        return connection.scalar(select(func.count()).select_from(ApiUsage)) or 0


def rebuild_if_never_built(engine: Engine) -> None:
    """Compute the sums of a database that is older than these tables. Raises sqlalchemy.exc.SQLAlchemyError."""
    with engine.connect() as connection:
        never_built = connection.scalar(
            select(exists(select(ApiUsage.request_id)) & ~exists(select(UsageRollup.start)))
        )
    if never_built:
        log.info("usage statistics: %d rows summed up", rebuild_rollups(engine))


def _delete_sums(connection: Connection, since: datetime) -> None:
    """Delete the sums of every period that ends after ``since``, the beginning of an hour."""
    for table in (UsageRollup, UsageSeries):
        for period in PERIODS:
            connection.execute(delete(table).where(table.period == period, table.start >= start_of(period, since)))
    connection.execute(delete(UsageSession).where(UsageSession.last_hour >= since))


def _add_pruned_hours(connection: Connection, since: datetime) -> None:
    """Add the hours whose rows are gone to the sums of the day and the month that ``since`` divides."""
    if since == _BEGINNING:
        return
    day, month = start_of("day", since), start_of("month", since)
    for start, end, periods in ((month, day, ("month",)), (day, since, ("day", "month"))):
        hours = Rollups()
        hours.add_sums(
            connection.execute(select(UsageRollup.__table__).where(*_hours_between(UsageRollup, start, end))),
            connection.execute(select(UsageSeries.__table__).where(*_hours_between(UsageSeries, start, end))),
        )
        hours.write(connection, periods)


def _hours_between(table: type[UsageRollup | UsageSeries], start: datetime, end: datetime) -> list[ColumnElement[bool]]:
    return [table.period == "hour", table.start >= start, table.start < end]


def _sum_up_rows(connection: Connection, since: datetime, progress: Callable[[int], None]) -> int:
    """Read the rows once, in order of time, and write the sums of each month after its last row."""
    result = connection.execute(
        select(*_USAGE_COLUMNS).where(ApiUsage.created_at >= since).order_by(ApiUsage.created_at),
        execution_options={"yield_per": FETCH_BATCH},
    )
    rollups, month, count = Rollups(), _BEGINNING, 0
    for rows in result.partitions():
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
