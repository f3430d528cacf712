"""The body of ``GET /v1/stats``. It is read from the sums alone, so its cost does not grow with the requests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from mistral_api.analytics.gpu_stats import CardStatistics, gpu_series
from mistral_api.analytics.histogram import bucket_middle, percentile, sum_histograms
from mistral_api.analytics.periods import SERIES_POINTS, WINDOW_COVER, TimeWindow
from mistral_api.database.tables.usage import ALL_OWNERS, ROLLUP_SUMS, SERIES_HISTOGRAMS

# The sums of ROLLUP_SUMS by name, and ``failed``.
UsageSums = Counter[str]

_READ_GROUPS = text(
    f"SELECT endpoint, model, owner, status, {', '.join(f'sum({name}) AS {name}' for name in ROLLUP_SUMS)} "
    f"FROM usage_rollups WHERE {WINDOW_COVER} AND (:owner = '{ALL_OWNERS}' OR owner = :owner) "
    "GROUP BY endpoint, model, owner, status"
)
# A point of the series needs no histogram: it has the bucket of its 95th percentile.
_READ_POINTS = text(
    "SELECT period, CAST(extract(epoch FROM start) AS bigint) AS start, requests, failed, prompt_tokens, "
    f"completion_tokens, sessions, p95_latency_bucket, {WINDOW_COVER} AS covers, "
    f"{', '.join(f'CASE WHEN {WINDOW_COVER} THEN CAST({name} AS text) END AS {name}' for name in SERIES_HISTOGRAMS)} "
    f"FROM usage_series WHERE owner = :owner AND ({WINDOW_COVER} OR {SERIES_POINTS})"
)


class StatsWindow(TypedDict):
    """The window of time: its length as it was asked for, its start and end (Unix seconds)."""

    hours: int
    start: int
    end: int


class RequestCounts(TypedDict):
    """How many requests there were, and how they ended."""

    total: int
    succeeded: int
    failed: int


class RequestsByStatus(RequestCounts):
    """The same, and how many there were of each HTTP status."""

    by_status: dict[str, int]


class TokenSums(TypedDict):
    """The tokens of all requests."""

    prompt: int
    cached: int
    completion: int
    total: int


class Mean(TypedDict):
    """A mean, null without any value."""

    mean: float | None


class MeanAndMedian(Mean):
    """A mean and a median."""

    p50: float | None


class Distribution(MeanAndMedian):
    """A mean and three percentiles."""

    p95: float | None
    p99: float | None


class UsagePoint(TypedDict):
    """The requests of one hour or day, which begins at ``start`` (Unix seconds)."""

    start: int
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    p95_latency_ms: float | None


class GroupUsage(TypedDict):
    """The requests of one endpoint, model or key."""

    requests: RequestCounts
    tokens: TokenSums
    latency_ms: Mean


class EndpointUsage(GroupUsage):
    """The requests to one endpoint."""

    endpoint: str | None


class ModelUsage(GroupUsage):
    """The requests for one model, null for those without one."""

    model: str | None


class KeyUsage(GroupUsage):
    """The requests of one key."""

    key: str | None


class UsageStats(TypedDict):
    """The whole body."""

    object: Literal["usage.stats"]
    window: StatsWindow
    requests: RequestsByStatus
    tokens: TokenSums
    latency_ms: Distribution
    time_to_first_token_ms: Distribution
    tokens_per_second: MeanAndMedian
    sessions: int
    by_endpoint: list[EndpointUsage]
    by_model: list[ModelUsage]
    by_key: list[KeyUsage]
    series: list[UsagePoint]
    gpu: list[CardStatistics]


_Groups = list[tuple[Row[Any], UsageSums]]


def usage_stats(session: Session, window: TimeWindow) -> UsageStats:
    """Return the statistics of a window of time."""
    groups = _read_groups(session, window)
    points, covering = _read_points(session, window)
    total = _total(sums for _, sums in groups)
    histograms = {name: sum_histograms(_decode(getattr(row, name)) for row in covering) for name in SERIES_HISTOGRAMS}
    return {
        "object": "usage.stats",
        "window": {"hours": window.hours, "start": _unix(window.start), "end": _unix(window.end)},
        "requests": {**_request_counts(total), "by_status": _count_by_status(groups)},
        "tokens": _token_sums(total),
        "latency_ms": _distribution(_mean(total, "latency_us", "requests"), histograms["latency"]),
        "time_to_first_token_ms": _distribution(
            _mean(total, "first_token_us", "first_token_requests"), histograms["first_token"]
        ),
        "tokens_per_second": {
            "mean": _mean(total, "rate_thousandths", "rate_requests"),
            "p50": percentile(histograms["rate"], 0.5),
        },
        "sessions": sum(row.sessions for row in covering),
        "by_endpoint": [{"endpoint": name, **usage} for name, usage in _group_by(groups, "endpoint")],
        "by_model": [{"model": name, **usage} for name, usage in _group_by(groups, "model")],
        "by_key": [{"key": name, **usage} for name, usage in _group_by(groups, "owner")],
        "series": [_usage_point(start, points.get(start)) for start in map(_unix, window.starts())],
        "gpu": gpu_series(session, window),
    }


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())


def _read_groups(session: Session, window: TimeWindow) -> _Groups:
    """Return the sums of the window by endpoint, model, key and status, each with its row."""
    groups = []
    for row in session.execute(_READ_GROUPS, window.bounds()):
        sums = Counter({name: int(getattr(row, name)) for name in ROLLUP_SUMS})
        sums["failed"] = sums["requests"] if row.status >= 400 else 0
        groups.append((row, sums))
    return groups


def _read_points(session: Session, window: TimeWindow) -> tuple[dict[int, Row[Any]], list[Row[Any]]]:
    """Return the points of the series by start, and the rows that cover the window."""
    rows = session.execute(_READ_POINTS, window.bounds()).all()
    points = {row.start: row for row in rows if row.period == window.unit}
    return points, [row for row in rows if row.covers]


def _decode(array: str) -> list[int]:
    """Read PostgreSQL's ``{1,2,3}`` as JSON: that takes a tenth of the time that psycopg2 needs for an array."""
    counts: list[int] = orjson.loads(f"[{array[1:-1]}]")
    return counts


def _total(groups: Iterable[UsageSums]) -> UsageSums:
    total: UsageSums = Counter()
    for sums in groups:
        total.update(sums)
    return total


def _request_counts(sums: UsageSums) -> RequestCounts:
    return {"total": sums["requests"], "succeeded": sums["requests"] - sums["failed"], "failed": sums["failed"]}


def _token_sums(sums: UsageSums) -> TokenSums:
    return {
        "prompt": sums["prompt_tokens"],
        "cached": sums["cached_tokens"],
        "completion": sums["completion_tokens"],
        "total": sums["prompt_tokens"] + sums["completion_tokens"],
    }


def _mean(sums: UsageSums, name: str, count: str) -> float | None:
    """Return the mean of a sum of thousandths (microseconds for milliseconds)."""
    return sums[name] / sums[count] / 1000 if sums[count] else None


def _distribution(mean: float | None, histogram: Sequence[int]) -> Distribution:
    return {
        "mean": mean,
        "p50": percentile(histogram, 0.5),
        "p95": percentile(histogram, 0.95),
        "p99": percentile(histogram, 0.99),
    }


def _count_by_status(groups: _Groups) -> dict[str, int]:
    counts: Counter[int] = Counter()
    for row, sums in groups:
        counts[row.status] += sums["requests"]
    return {str(status): counts[status] for status in sorted(counts)}


def _group_by(groups: _Groups, column: str) -> Iterator[tuple[str | None, GroupUsage]]:
    """Yield each value of a column with its usage, the one with the most requests first."""
    values: defaultdict[str, UsageSums] = defaultdict(Counter)
    for row, sums in groups:
        values[getattr(row, column)].update(sums)
    for value, sums in sorted(values.items(), key=lambda item: (-item[1]["requests"], item[0])):
        yield value or None, _group_usage(sums)


def _group_usage(sums: UsageSums) -> GroupUsage:
    return {
        "requests": _request_counts(sums),
        "tokens": _token_sums(sums),
        "latency_ms": {"mean": _mean(sums, "latency_us", "requests")},
    }


def _usage_point(start: int, row: Row[Any] | None) -> UsagePoint:
    return {
        "start": start,
        "requests": row.requests if row else 0,
        "failed": row.failed if row else 0,
        "prompt_tokens": row.prompt_tokens if row else 0,
        "completion_tokens": row.completion_tokens if row else 0,
        "p95_latency_ms": bucket_middle(row.p95_latency_bucket) if row and row.requests else None,
    }
