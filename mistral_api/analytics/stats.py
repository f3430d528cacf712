"""The figures behind ``GET /v1/stats``, read from the sums alone: their cost does not grow with the requests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Text, cast, func, or_, select
from sqlalchemy.orm import Session

from mistral_api.analytics.histogram import added, percentile
from mistral_api.analytics.window import Window
from mistral_api.tables.rollup import EVERYBODY, UsageRollup, UsageSeries

_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_SUMS = (
    "requests", "prompt_tokens", "cached_tokens", "completion_tokens", "latency_us",
    "first_token_us", "first_token_requests", "rate_thousandths", "rate_requests",
)  # fmt: skip
_HISTOGRAMS = ("latency", "first_token", "rate")

Sums = Counter[str]


def usage_stats(session: Session, window: Window) -> dict[str, Any]:
    """The body of ``GET /v1/stats``."""
    groups = _groups(session, window)
    points, covering = _points(session, window)
    total = _total(sums for _, sums in groups)
    spreads = {name: added(orjson.loads(getattr(row, name)) for row in covering) for name in _HISTOGRAMS}
    return {
        "object": "usage.stats",
        "window": {"hours": window.hours, "start": _unix(window.start), "end": _unix(window.end)},
        "requests": _requests(total) | {"by_status": _by_status(groups)},
        "tokens": _tokens(total),
        "latency_ms": {"mean": _mean(total, "latency_us", "requests")} | _percentiles(spreads["latency"]),
        "time_to_first_token_ms": {"mean": _mean(total, "first_token_us", "first_token_requests")}
        | _percentiles(spreads["first_token"]),
        "tokens_per_second": {
            "mean": _mean(total, "rate_thousandths", "rate_requests"),
            "p50": percentile(spreads["rate"], 0.5),
        },
        "sessions": sum(row.sessions for row in covering),
        "by_endpoint": _grouped(groups, "endpoint"),
        "by_model": _grouped(groups, "model"),
        "by_key": _grouped(groups, "owner", "key"),
        "series": [_point(start, points.get(start)) for start in window.starts()],
    }


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())


def _groups(session: Session, window: Window) -> list[tuple[Any, Sums]]:
    """The sums of the window by endpoint, model, key and status."""
    keys = (UsageRollup.endpoint, UsageRollup.model, UsageRollup.owner, UsageRollup.status)
    sums = [func.sum(getattr(UsageRollup, name)).label(name) for name in _SUMS]
    found = select(*keys, *sums).where(window.cover(UsageRollup)).group_by(*keys)
    if window.owner != EVERYBODY:
        found = found.where(UsageRollup.owner == window.owner)
    groups = []
    for row in session.execute(found):
        counted = Counter({name: int(getattr(row, name)) for name in _SUMS})
        counted["failed"] = counted["requests"] if row.status >= 400 else 0
        groups.append((row, counted))
    return groups


def _points(session: Session, window: Window) -> tuple[dict[datetime, Any], list[Any]]:
    """The points of the series by start, and the rows that cover the window.

    Histograms travel as JSON text: decoding it is much faster than psycopg2 reads arrays.
    """
    histograms = [cast(func.to_json(getattr(UsageSeries, name)), Text).label(name) for name in _HISTOGRAMS]
    covers = window.cover(UsageSeries).label("covers")
    rows = session.execute(
        select(
            UsageSeries.period, UsageSeries.start, UsageSeries.requests, UsageSeries.failed, UsageSeries.prompt_tokens,
            UsageSeries.completion_tokens, UsageSeries.sessions, *histograms, covers,
        ).where(UsageSeries.owner == window.owner, or_(window.cover(UsageSeries), window.points()))
    ).all()  # fmt: skip
    points = {row.start: row for row in rows if row.period == window.unit}
    return points, [row for row in rows if row.covers]


def _total(sums: Iterable[Sums]) -> Sums:
    total: Sums = Counter()
    for each in sums:
        total.update(each)
    return total


def _requests(sums: Sums) -> dict[str, Any]:
    return {"total": sums["requests"], "succeeded": sums["requests"] - sums["failed"], "failed": sums["failed"]}


def _tokens(sums: Sums) -> dict[str, int]:
    return {
        "prompt": sums["prompt_tokens"],
        "cached": sums["cached_tokens"],
        "completion": sums["completion_tokens"],
        "total": sums["prompt_tokens"] + sums["completion_tokens"],
    }


def _mean(sums: Sums, name: str, number: str) -> float | None:
    """From thousandths."""
    return sums[name] / sums[number] / 1000 if sums[number] else None


def _percentiles(histogram: Sequence[int]) -> dict[str, float | None]:
    return {name: percentile(histogram, share) for name, share in _PERCENTILES.items()}


def _by_status(groups: Iterable[tuple[Any, Sums]]) -> dict[str, int]:
    counts: Counter[int] = Counter()
    for row, sums in groups:
        counts[row.status] += sums["requests"]
    return {str(status): counts[status] for status in sorted(counts)}


def _grouped(groups: Iterable[tuple[Any, Sums]], column: str, shown: str | None = None) -> list[dict[str, Any]]:
    """One entry for each value of a column, the most used first."""
    values: defaultdict[str, Sums] = defaultdict(Counter)
    for row, sums in groups:
        values[getattr(row, column)].update(sums)
    return [
        {
            shown or column: value or None,
            "requests": _requests(sums),
            "tokens": _tokens(sums),
            "latency_ms": {"mean": _mean(sums, "latency_us", "requests")},
        }
        for value, sums in sorted(values.items(), key=lambda item: (-item[1]["requests"], item[0]))
    ]


def _point(start: datetime, row: Any) -> dict[str, Any]:
    return {
        "start": _unix(start),
        "requests": row.requests if row else 0,
        "failed": row.failed if row else 0,
        "prompt_tokens": row.prompt_tokens if row else 0,
        "completion_tokens": row.completion_tokens if row else 0,
        "p95_latency_ms": percentile(orjson.loads(row.latency), 0.95) if row else None,
    }
