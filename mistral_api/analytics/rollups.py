"""Summing usage up by hour, day and month, and adding the sums to those in PostgreSQL.

The writer sums up what it delivers, in the same transaction; ``rebuild`` sums up the rows once more.
Both go through here, and all sums are of whole numbers, so both come to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import orjson
from sqlalchemy import Connection, text

from mistral_api.analytics.histogram import added, count
from mistral_api.analytics.periods import PERIODS, start_of
from mistral_api.tables.recordset import column_names, recordset
from mistral_api.tables.rollup import EVERYBODY, UsageRollup, UsageSeries, UsageSession


class Usage(Protocol):
    """What is summed up of a request: an exchange, or a row of ``api_usage``."""

    @property
    def created_at(self) -> datetime: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def owner(self) -> str: ...
    @property
    def session_id(self) -> str | None: ...
    @property
    def status(self) -> int: ...
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...
    @property
    def latency_ms(self) -> float: ...
    @property
    def time_to_first_token_ms(self) -> float | None: ...
    @property
    def tokens_per_second(self) -> float | None: ...


@dataclass(slots=True)
class Point:
    """The sums of one key, or everybody, in one hour, day or month."""

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    sessions: int = 0
    latency: list[int] = field(default_factory=list)
    first_token: list[int] = field(default_factory=list)
    rate: list[int] = field(default_factory=list)

    def add(self, usage: Usage) -> None:
        """Count a request."""
        self.requests += 1
        self.failed += usage.status >= 400
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        count(self.latency, usage.latency_ms)
        if usage.time_to_first_token_ms is not None:
            count(self.first_token, usage.time_to_first_token_ms)
        if usage.tokens_per_second is not None:
            count(self.rate, usage.tokens_per_second)

    def merge(self, other: Point) -> None:
        """Add the sums of another point."""
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _HISTOGRAMS:
            setattr(self, name, added([getattr(self, name), getattr(other, name)]))


_COUNTED = ("requests", "failed", "prompt_tokens", "completion_tokens", "sessions")
_HISTOGRAMS = ("latency", "first_token", "rate")
_SUMS = (
    "requests", "prompt_tokens", "cached_tokens", "completion_tokens", "latency_us",
    "first_token_us", "first_token_requests", "rate_thousandths", "rate_requests",
)  # fmt: skip

_GroupKey = tuple[datetime, str, str, str, int]
_PointKey = tuple[datetime, str]
_SessionKey = tuple[str, str]


class Rollups:
    """The sums of some requests. Add the requests, then write them, once."""

    def __init__(self) -> None:
        self._groups: dict[_GroupKey, list[int]] = {}
        self._points: dict[_PointKey, Point] = {}
        self._sessions: dict[_SessionKey, datetime] = {}

    def add(self, usage: Usage) -> None:
        """Count a request in its hour."""
        hour = start_of("hour", usage.created_at)
        group = (hour, usage.endpoint, usage.model or "", usage.owner, usage.status)
        sums = self._groups.get(group)
        self._groups[group] = _sums(usage) if sums is None else [a + b for a, b in zip(sums, _sums(usage), strict=True)]
        for owner in (usage.owner, EVERYBODY):
            self._point(hour, owner).add(usage)
        if usage.session_id:
            session = (usage.owner, usage.session_id)
            self._sessions[session] = max(hour, self._sessions.get(session, hour))

    def _point(self, start: datetime, owner: str) -> Point:
        return self._points.setdefault((start, owner), Point())

    def add_sums(self, rollups: Iterable[Any], points: Iterable[Any]) -> None:
        """Take over the sums of whole hours: rows of ``usage_rollups`` and of ``usage_series``."""
        for row in rollups:
            group = (row.start, row.endpoint, row.model, row.owner, row.status)
            self._groups[group] = [getattr(row, name) for name in _SUMS]
        for row in points:
            self._points[row.start, row.owner] = Point(**{name: getattr(row, name) for name in _COUNTED + _HISTOGRAMS})

    def __len__(self) -> int:
        """How many sums there are."""
        return len(self._groups) + len(self._points) + len(self._sessions)

    def write(self, connection: Connection, periods: Sequence[str] = PERIODS) -> None:
        """Add the sums to those in the database, in the connection's transaction."""
        if not self._groups:
            return
        self._move_sessions(connection)
        parameters = {"rollups": _json(self._rollup_rows(periods)), "points": _json(self._point_rows(periods))}
        connection.execute(_ADD, parameters)

    def _move_sessions(self, connection: Connection) -> None:
        """A session counts in the period in which it was last used: take it out of where it counted before."""
        rows = [
            {"owner": owner, "session_id": session_id, "last_hour": hour}
            for (owner, session_id), hour in sorted(self._sessions.items())
        ]
        if not rows:
            return
        for row in connection.execute(_MOVE_SESSIONS, {"rows": _json(rows)}):
            for owner in (row.owner, EVERYBODY):
                self._point(row.last_hour, owner).sessions += 1
                if row.former is not None:
                    self._point(row.former, owner).sessions -= 1

    def _rollup_rows(self, periods: Sequence[str]) -> list[dict[str, Any]]:
        found: dict[tuple[Any, ...], list[int]] = {}
        for (hour, *group), sums in self._groups.items():
            for period in periods:
                key = (period, start_of(period, hour), *group)
                before = found.get(key)
                found[key] = sums if before is None else [a + b for a, b in zip(before, sums, strict=True)]
        names = ("period", "start", "endpoint", "model", "owner", "status", *_SUMS)
        return [dict(zip(names, (*key, *sums), strict=True)) for key, sums in found.items()]

    def _point_rows(self, periods: Sequence[str]) -> list[dict[str, Any]]:
        found: dict[tuple[str, str, datetime], Point] = {}
        for (hour, owner), point in self._points.items():
            for period in periods:
                found.setdefault((period, owner, start_of(period, hour)), Point()).merge(point)
        return [
            {"period": period, "owner": owner, "start": start}
            | {name: getattr(point, name) for name in _COUNTED + _HISTOGRAMS}
            for (period, owner, start), point in found.items()
        ]


def _sums(usage: Usage) -> list[int]:
    """In the order of ``_SUMS``."""
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


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return orjson.dumps(list(rows)).decode()


def _changes(names: Iterable[str]) -> str:
    """What becomes of a row that is there already: numbers and histograms are added to its own."""
    changes = []
    for name in names:
        if name in _HISTOGRAMS:
            changes.append(
                f"{name} = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0) FROM "
                f"unnest(present.{name}, excluded.{name}) WITH ORDINALITY AS pair(a, b, bucket) ORDER BY bucket)"
            )
        elif name in _SUMS + _COUNTED:
            changes.append(f"{name} = present.{name} + excluded.{name}")
    return ", ".join(changes)


def _add_up(table: type[UsageRollup | UsageSeries], parameter: str) -> str:
    """Insert rows or add to them, always in one order: two transactions never wait for each other's rows."""
    names = column_names(table)
    columns, key = ", ".join(names), ", ".join(column.name for column in table.__table__.primary_key)
    return (
        f"INSERT INTO {table.__tablename__} AS present ({columns}) SELECT {columns} "
        f"FROM {recordset(table, names, parameter)} ORDER BY {key} "
        f"ON CONFLICT ({key}) DO UPDATE SET {_changes(names)}"
    )


_ADD = text(f"{_add_up(UsageRollup, 'rollups')}; {_add_up(UsageSeries, 'points')}")
# Answers the sessions that moved, and the hour in which they counted before.
_SESSIONS = recordset(UsageSession, column_names(UsageSession))
_MOVE_SESSIONS = text(
    "WITH former AS (SELECT s.owner, s.session_id, s.last_hour FROM usage_sessions AS s "
    f"JOIN {_SESSIONS} USING (owner, session_id)), "
    "moved AS (INSERT INTO usage_sessions AS s (owner, session_id, last_hour) SELECT owner, session_id, last_hour "
    f"FROM {_SESSIONS} ON CONFLICT (owner, session_id) "
    "DO UPDATE SET last_hour = excluded.last_hour WHERE s.last_hour < excluded.last_hour "
    "RETURNING owner, session_id, last_hour) "
    "SELECT owner, moved.last_hour, former.last_hour AS former FROM moved LEFT JOIN former USING (owner, session_id)"
)
