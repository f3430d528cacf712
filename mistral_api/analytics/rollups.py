"""Usage summed up, and added to the sums in PostgreSQL.

Adding sums to those that PostgreSQL has already: one statement for all of them, whatever is there.

Summing usage up by hour, day and month, and adding the sums to those in PostgreSQL.

The writer sums up what it delivers, in the same transaction; ``rebuild`` sums up the rows once more.
Both go through here, and all sums are of whole numbers, so both come to the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import add
from typing import Any, Protocol

from sqlalchemy import Connection, text

from mistral_api.analytics.histogram import count_value, sum_histograms
from mistral_api.analytics.periods import PERIODS, start_of
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.usage import (
    EVERYBODY,
    ROLLUP_SUMS,
    SERIES_COUNTS,
    SERIES_HISTOGRAMS,
    UsageRollup,
    UsageSeries,
)


def upsert_sums(connection: Connection, rollups: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]]) -> None:
    """Add rows to ``usage_rollups`` and ``usage_series``, in the connection's transaction."""
    connection.execute(_ADD, {"rollups": rows_as_json(rollups), "points": rows_as_json(points)})


def _both(name: str) -> str:
    """A number or a histogram that is there already, with the new one added."""
    if name in SERIES_HISTOGRAMS:
        return (
            f"ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0) FROM "
            f"unnest(present.{name}, excluded.{name}) WITH ORDINALITY AS pair(a, b, bucket) ORDER BY bucket)"
        )
    return f"present.{name} + excluded.{name}"


def _p95_bucket(histogram: str, requests: str) -> str:
    """``histogram.percentile`` in SQL, as far as the bucket: PostgreSQL counts from 1."""
    return (
        f"(SELECT min(bucket) - 1 FROM (SELECT bucket, sum(number) OVER (ORDER BY bucket) AS seen "
        f"FROM unnest({histogram}) WITH ORDINALITY AS counted(number, bucket)) AS running "
        f"WHERE seen >= greatest(1, ceil(0.95 * ({requests}))))"
    )


def _add_up(table: type[UsageRollup | UsageSeries], parameter: str, computed: dict[str, tuple[str, str]]) -> str:
    """Insert rows or add to them, always in one order: two transactions never wait for each other's rows.

    ``computed`` has for a column what it is in a new row, and in one that has been added to.
    """
    keys = [column.name for column in table.__table__.primary_key]
    given = [name for name in column_names(table) if name not in computed]
    new = [*given, *(value for value, _ in computed.values())]
    changes = {name: _both(name) for name in given if name not in keys} | {
        name: value for name, (_, value) in computed.items()
    }
    return (
        f"INSERT INTO {table.__tablename__} AS present ({', '.join([*given, *computed])}) SELECT {', '.join(new)} "
        f"FROM {recordset(table, given, parameter)} ORDER BY {', '.join(keys)} ON CONFLICT ({', '.join(keys)}) "
        f"DO UPDATE SET {', '.join(f'{name} = {value}' for name, value in changes.items())}"
    )


_P95 = (_p95_bucket("latency", "requests"), _p95_bucket(_both("latency"), _both("requests")))
_ADD = text(f"{_add_up(UsageRollup, 'rollups', {})}; {_add_up(UsageSeries, 'points', {'p95_latency_bucket': _P95})}")


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
    """The sums of one key, or everybody, in one hour, day or month."""

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
        """The sums of several points."""
        counted = [sum(getattr(point, name) for point in points) for name in SERIES_COUNTS]
        return cls(*counted, *(sum_histograms(getattr(point, name) for point in points) for name in SERIES_HISTOGRAMS))

    def sums(self) -> dict[str, Any]:
        """The sums by name."""
        return {name: getattr(self, name) for name in SERIES_COUNTS + SERIES_HISTOGRAMS}


class Rollups:
    """The sums of some requests, by hour while they are added. Write them once."""

    def __init__(self) -> None:
        self._groups: dict[tuple[datetime, str, str, str, int], list[int]] = {}
        self._points: dict[tuple[datetime, str], SeriesSums] = {}

    def add(self, usage: RequestUsage) -> None:
        """Count a request in its hour."""
        hour, owner = start_of("hour", usage.created_at), usage.owner
        group = (hour, usage.endpoint, usage.model or "", owner, usage.status)
        sums = _sums(usage)
        before = self._groups.get(group)
        self._groups[group] = sums if before is None else list(map(add, before, sums))
        self._point(hour, owner).add(usage)

    def add_sessions(self, changes: Mapping[tuple[datetime, str], int]) -> None:
        """Count, by hour and key, the sessions that were last used then."""
        for (hour, owner), number in changes.items():
            self._point(hour, owner).sessions += number

    def add_sums(self, rollups: Iterable[Any], points: Iterable[Any]) -> None:
        """Take over the sums of whole hours: rows of ``usage_rollups`` and of ``usage_series``."""
        for row in rollups:
            group = (row.start, row.endpoint, row.model, row.owner, row.status)
            self._groups[group] = [getattr(row, name) for name in ROLLUP_SUMS]
        for row in points:
            if row.owner != EVERYBODY:
                sums = {name: getattr(row, name) for name in SERIES_COUNTS + SERIES_HISTOGRAMS}
                self._points[row.start, row.owner] = SeriesSums(**sums)

    def _point(self, hour: datetime, owner: str) -> SeriesSums:
        point = self._points.get((hour, owner))
        if point is None:
            point = self._points[hour, owner] = SeriesSums()
        return point

    def write(self, connection: Connection, periods: Sequence[str] = PERIODS) -> None:
        """Add the sums to those in the database, by hour, day and month, in the connection's transaction."""
        if self._points:
            upsert_sums(connection, self._rollup_rows(periods), self._point_rows(periods))

    def _rollup_rows(self, periods: Sequence[str]) -> list[dict[str, Any]]:
        found: defaultdict[tuple[Any, ...], list[list[int]]] = defaultdict(list)
        for (hour, *group), sums in self._groups.items():
            for period in periods:
                found[period, start_of(period, hour), *group].append(sums)
        names = ("period", "start", "endpoint", "model", "owner", "status", *ROLLUP_SUMS)
        return [
            dict(zip(names, (*key, *map(sum, zip(*sums, strict=True))), strict=True)) for key, sums in found.items()
        ]

    def _point_rows(self, periods: Sequence[str]) -> list[dict[str, Any]]:
        found: defaultdict[tuple[str, str, datetime], list[SeriesSums]] = defaultdict(list)
        for (hour, owner), point in self._points.items():
            for period in periods:
                for whose in (owner, EVERYBODY):
                    found[period, whose, start_of(period, hour)].append(point)
        return [
            {"period": period, "owner": owner, "start": start} | SeriesSums.total(points).sums()
            for (period, owner, start), points in found.items()
        ]


def _sums(usage: RequestUsage) -> list[int]:
    """In the order of ``SUMS``."""
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
