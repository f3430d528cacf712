"""The sums of usage by hour, day and month: computed in memory, and added to those in PostgreSQL.

The writer sums up the exchanges that it inserts, in the same transaction; ``rebuild`` sums up the rows once more. Both
do it here, and all sums are whole numbers, so both get the same result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import add
from typing import Any, Protocol

from sqlalchemy import Connection, Row, text

from mistral_api.analytics.histogram import count_value, sum_histograms
from mistral_api.analytics.periods import PERIODS, start_of
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.usage import (
    ALL_OWNERS,
    ROLLUP_SUMS,
    SERIES_COUNTS,
    SERIES_HISTOGRAMS,
    UsageRollup,
    UsageSeries,
)

_ROWS_AT_ONCE = 2000
_GROUP_COLUMNS = ("period", "start", "endpoint", "model", "owner", "status")


class RequestUsage(Protocol):
    """What is summed up of a request: an exchange, or a row of ``api_usage``."""

    created_at: datetime
    endpoint: str
    model: str | None
    owner: str
    status: int
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    latency_ms: float
    time_to_first_token_ms: float | None
    tokens_per_second: float | None


@dataclass(slots=True)
class SeriesSums:
    """A point of the series: the requests of one key, or of all keys, in one period (``usage_series``)."""

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    sessions: int = 0
    latency: list[int] = field(default_factory=list)
    first_token: list[int] = field(default_factory=list)
    rate: list[int] = field(default_factory=list)

    def add(self, usage: RequestUsage) -> None:
        """Count a request."""
        self.requests += 1
        self.failed += usage.status >= 400
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        count_value(self.latency, usage.latency_ms)
        if (first_token := usage.time_to_first_token_ms) is not None:
            count_value(self.first_token, first_token)
        if (rate := usage.tokens_per_second) is not None:
            count_value(self.rate, rate)

    @classmethod
    def total(cls, points: Sequence[SeriesSums]) -> SeriesSums:
        """Return the sum of several points."""
        counts = [sum(getattr(point, name) for point in points) for name in SERIES_COUNTS]
        return cls(*counts, *(sum_histograms(getattr(point, name) for point in points) for name in SERIES_HISTOGRAMS))

    def columns(self) -> dict[str, object]:
        """Return the counts and histograms as columns of ``usage_series``."""
        return {name: getattr(self, name) for name in SERIES_COUNTS + SERIES_HISTOGRAMS}


class Rollups:
    """The sums of some requests. They are held by hour, and written once by hour, day and month."""

    def __init__(self) -> None:
        # By hour, endpoint, model, key and status: the values of ROLLUP_SUMS.
        self._groups: dict[tuple[datetime, str, str, str, int], list[int]] = {}
        # By hour and key.
        self._points: dict[tuple[datetime, str], SeriesSums] = {}

    def add(self, usage: RequestUsage) -> None:
        """Count a request in its hour."""
        hour, owner = start_of("hour", usage.created_at), usage.owner
        group = (hour, usage.endpoint, usage.model or "", owner, usage.status)
        sums = _rollup_sums(usage)
        before = self._groups.get(group)
        self._groups[group] = sums if before is None else list(map(add, before, sums))
        self._point(hour, owner).add(usage)

    def add_sessions(self, changes: Mapping[tuple[datetime, str], int]) -> None:
        """Count, by hour and key, the sessions whose last use was in that hour."""
        for (hour, owner), number in changes.items():
            self._point(hour, owner).sessions += number

    def add_sums(self, rollups: Iterable[Row[Any]], points: Iterable[Row[Any]]) -> None:
        """Add the sums of whole hours: rows of ``usage_rollups`` and of ``usage_series``."""
        for row in rollups:
            group = (row.start, row.endpoint, row.model, row.owner, row.status)
            self._groups[group] = [getattr(row, name) for name in ROLLUP_SUMS]
        for row in points:
            if row.owner != ALL_OWNERS:
                columns = {name: getattr(row, name) for name in SERIES_COUNTS + SERIES_HISTOGRAMS}
                self._points[row.start, row.owner] = SeriesSums(**columns)

    def _point(self, hour: datetime, owner: str) -> SeriesSums:
        point = self._points.get((hour, owner))
        if point is None:
            point = self._points[hour, owner] = SeriesSums()
        return point

    def write(self, connection: Connection, periods: Sequence[str] = PERIODS) -> None:
        """Add the sums to those in the database, for each of the periods, in the connection's transaction."""
        if self._points:
            rollups, points = self._rollup_rows(periods), self._series_rows(periods)
            connection.execute(_ADD, {"rollups": rows_as_json(rollups), "points": rows_as_json(points)})

    def _rollup_rows(self, periods: Sequence[str]) -> list[dict[str, object]]:
        groups: defaultdict[tuple[Any, ...], list[list[int]]] = defaultdict(list)
        for (hour, *group), sums in self._groups.items():
            for period in periods:
                groups[period, start_of(period, hour), *group].append(sums)
        names = (*_GROUP_COLUMNS, *ROLLUP_SUMS)
        return [
            dict(zip(names, (*key, *map(sum, zip(*sums, strict=True))), strict=True)) for key, sums in groups.items()
        ]

    def _series_rows(self, periods: Sequence[str]) -> list[dict[str, object]]:
        series: defaultdict[tuple[str, str, datetime], list[SeriesSums]] = defaultdict(list)
        for (hour, owner), point in self._points.items():
            for period in periods:
                for each in (owner, ALL_OWNERS):
                    series[period, each, start_of(period, hour)].append(point)
        return [
            {"period": period, "owner": owner, "start": start} | SeriesSums.total(points).columns()
            for (period, owner, start), points in series.items()
        ]


def change_owner(connection: Connection, former: str, owner: str) -> int:
    """Give an owner the sums of a former one, added to their own; return how many rows these were.

    The sums of all owners together stay as they are.
    """
    moved = 0
    for parameter, table, computed in (("rollups", UsageRollup, ()), ("points", UsageSeries, ("p95_latency_bucket",))):
        names = [name for name in column_names(table) if name not in computed]
        taken = text(f"DELETE FROM {table.__tablename__} WHERE owner = :former RETURNING {', '.join(names)}")
        rows = [{**row, "owner": owner} for row in connection.execute(taken, {"former": former}).mappings()]
        moved += len(rows)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows_as_json(rows[first : first + _ROWS_AT_ONCE])
            connection.execute(_ADD, {"rollups": "[]", "points": "[]"} | {parameter: some})
    return moved


def _rollup_sums(usage: RequestUsage) -> list[int]:
    """Return the values of one request, in the order of ``ROLLUP_SUMS``."""
    first_token, rate = usage.time_to_first_token_ms, usage.tokens_per_second
    return [
        1,
        usage.prompt_tokens or 0,
        usage.cached_tokens or 0,
        usage.completion_tokens or 0,
        round(usage.latency_ms * 1000),
        round((first_token or 0) * 1000),
        int(first_token is not None),
        round((rate or 0) * 1000),
        int(rate is not None),
    ]


def _added_value(name: str) -> str:
    """Return the SQL for a count or a histogram that is there already, with the new one added."""
    if name in SERIES_HISTOGRAMS:
        return (
            f"ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0) FROM "
            f"unnest(present.{name}, excluded.{name}) WITH ORDINALITY AS pair(a, b, bucket) ORDER BY bucket)"
        )
    return f"present.{name} + excluded.{name}"


def _p95_bucket(histogram: str, requests: str) -> str:
    """Return the SQL for the bucket of ``histogram.percentile`` at 0.95. PostgreSQL counts buckets from 1."""
    return (
        f"(SELECT min(bucket) - 1 FROM (SELECT bucket, sum(number) OVER (ORDER BY bucket) AS seen "
        f"FROM unnest({histogram}) WITH ORDINALITY AS counted(number, bucket)) AS running "
        f"WHERE seen >= greatest(1, ceil(0.95 * ({requests}))))"
    )


def _upsert(table: type[UsageRollup | UsageSeries], parameter: str, computed: Mapping[str, tuple[str, str]]) -> str:
    """Return the SQL that inserts rows, or adds them to those that are there already.

    The order is always the same, so that two transactions never wait for each other's rows. ``computed`` has for a
    column its SQL in a new row, and in one that is added to.
    """
    keys = [column.name for column in table.__table__.primary_key]
    stored = [name for name in column_names(table) if name not in computed]
    values = [*stored, *(new for new, _ in computed.values())]
    changes = {name: _added_value(name) for name in stored if name not in keys}
    changes |= {name: added for name, (_, added) in computed.items()}
    return (
        f"INSERT INTO {table.__tablename__} AS present ({', '.join([*stored, *computed])}) SELECT {', '.join(values)} "
        f"FROM {recordset(table, stored, parameter)} ORDER BY {', '.join(keys)} ON CONFLICT ({', '.join(keys)}) "
        f"DO UPDATE SET {', '.join(f'{name} = {value}' for name, value in changes.items())}"
    )


_P95 = (_p95_bucket("latency", "requests"), _p95_bucket(_added_value("latency"), _added_value("requests")))
_ADD = text(f"{_upsert(UsageRollup, 'rollups', {})}; {_upsert(UsageSeries, 'points', {'p95_latency_bucket': _P95})}")
