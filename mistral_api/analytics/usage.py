"""Usage figures of a window of hours, computed by PostgreSQL from the usage rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, distinct, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from mistral_api.tables.usage import ApiUsage

# Windows longer than this get a point a day instead of a point an hour.
HOURLY_UP_TO = 168
_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time up to now; ``owner`` limits it to one owner's requests."""

    hours: int
    start: datetime
    end: datetime
    owner: str | None

    @classmethod
    def last(cls, hours: int, owner: str | None) -> Window:
        """The last so many hours."""
        end = datetime.now(UTC)
        return cls(hours, end - timedelta(hours=hours), end, owner)

    def holds(self) -> list[ColumnElement[bool]]:
        """The conditions for a row to be in the window."""
        conditions = [ApiUsage.created_at >= self.start, ApiUsage.created_at <= self.end]
        return conditions + ([ApiUsage.owner == self.owner] if self.owner is not None else [])


def usage_stats(session: Session, window: Window) -> dict[str, Any]:
    """The body of ``GET /v1/stats``."""
    totals = session.execute(_totals(window)).one()
    return {
        "object": "usage.stats",
        "window": {"hours": window.hours, "start": _unix(window.start), "end": _unix(window.end)},
        "requests": _requests(totals) | {"by_status": _by_status(session, window)},
        "tokens": _tokens(totals),
        "latency_ms": _spread(totals, "latency"),
        "time_to_first_token_ms": _spread(totals, "first_token"),
        "tokens_per_second": {"mean": totals.rate_mean, "p50": totals.rate_p50},
        "sessions": totals.sessions,
        "by_endpoint": _grouped(session, window, ApiUsage.endpoint, "endpoint"),
        "by_model": _grouped(session, window, ApiUsage.model, "model"),
        "by_key": _grouped(session, window, ApiUsage.owner, "key"),
        "series": _series(session, window),
    }


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())


_FAILED = ApiUsage.status >= 400


def _counts() -> list[ColumnElement[Any]]:
    """The sums that every row of figures has."""
    return [
        func.count().label("total"),
        func.count(case((_FAILED, 1))).label("failed"),
        func.coalesce(func.sum(ApiUsage.prompt_tokens), 0).label("prompt_tokens"),
        func.coalesce(func.sum(ApiUsage.cached_tokens), 0).label("cached_tokens"),
        func.coalesce(func.sum(ApiUsage.completion_tokens), 0).label("completion_tokens"),
    ]


def _percentile(column: InstrumentedAttribute[Any], share: float) -> ColumnElement[Any]:
    return func.percentile_cont(share).within_group(column)


def _spread_columns(column: InstrumentedAttribute[Any], name: str) -> list[ColumnElement[Any]]:
    percentiles = [_percentile(column, share).label(f"{name}_{key}") for key, share in _PERCENTILES.items()]
    return [func.avg(column).label(f"{name}_mean"), *percentiles]


def _totals(window: Window) -> Select[Any]:
    return select(
        *_counts(),
        func.count(distinct(ApiUsage.session_id)).label("sessions"),
        *_spread_columns(ApiUsage.latency_ms, "latency"),
        *_spread_columns(ApiUsage.time_to_first_token_ms, "first_token"),
        func.avg(ApiUsage.tokens_per_second).label("rate_mean"),
        _percentile(ApiUsage.tokens_per_second, 0.5).label("rate_p50"),
    ).where(*window.holds())


def _requests(row: Any) -> dict[str, Any]:
    return {"total": row.total, "succeeded": row.total - row.failed, "failed": row.failed}


def _tokens(row: Any) -> dict[str, int]:
    return {
        "prompt": row.prompt_tokens,
        "cached": row.cached_tokens,
        "completion": row.completion_tokens,
        "total": row.prompt_tokens + row.completion_tokens,
    }


def _spread(row: Any, name: str) -> dict[str, float | None]:
    return {key: getattr(row, f"{name}_{key}") for key in ("mean", *_PERCENTILES)}


def _by_status(session: Session, window: Window) -> dict[str, int]:
    rows = session.execute(
        select(ApiUsage.status, func.count()).where(*window.holds()).group_by(ApiUsage.status).order_by(ApiUsage.status)
    )
    return {str(status): count for status, count in rows}


def _grouped(session: Session, window: Window, column: InstrumentedAttribute[Any], name: str) -> list[dict[str, Any]]:
    """One entry for each value of a column, the most used first."""
    rows = session.execute(
        select(column.label("value"), *_counts(), func.avg(ApiUsage.latency_ms).label("latency_mean"))
        .where(*window.holds())
        .group_by(column)
        .order_by(func.count().desc(), column)
    )
    return [
        {
            name: row.value,
            "requests": _requests(row),
            "tokens": _tokens(row),
            "latency_ms": {"mean": row.latency_mean},
        }
        for row in rows
    ]


def _series(session: Session, window: Window) -> list[dict[str, Any]]:
    """A point for every hour or day of the window, also for those without a request."""
    unit, step = ("hour", timedelta(hours=1)) if window.hours <= HOURLY_UP_TO else ("day", timedelta(days=1))
    start = func.date_trunc(unit, ApiUsage.created_at, "UTC").label("start")
    p95 = _percentile(ApiUsage.latency_ms, 0.95).label("latency_p95")
    rows = session.execute(select(start, *_counts(), p95).where(*window.holds()).group_by(start))
    found = {row.start: row for row in rows}
    first = window.start.replace(minute=0, second=0, microsecond=0)
    moment = first if unit == "hour" else first.replace(hour=0)
    points = []
    while moment <= window.end:
        points.append(_point(moment, found.get(moment)))
        moment += step
    return points


def _point(start: datetime, row: Any) -> dict[str, Any]:
    return {
        "start": _unix(start),
        "requests": row.total if row else 0,
        "failed": row.failed if row else 0,
        "prompt_tokens": row.prompt_tokens if row else 0,
        "completion_tokens": row.completion_tokens if row else 0,
        "p95_latency_ms": row.latency_p95 if row else None,
    }
