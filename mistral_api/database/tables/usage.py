"""Usage: one row for each request, and the sums of these rows and of the graphics cards' samples.

``api_usage`` is partitioned by month. ``/v1/stats`` reads the sums alone, so that its cost does not grow with the
requests: ``usage_rollups`` and ``usage_series`` by hour, day and month, ``gpu_series`` by hour and day. Every request
counts in one row of each period. All sums are whole numbers (microseconds, thousandths of a token a second,
milliwatts), so that they come out the same in whatever order they are added.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from mistral_api.database.tables.base import TIMESTAMPTZ, Base


class ApiUsage(Base):
    """One request: what it cost and how it ended. Token counts are null where nobody counted them."""

    __tablename__ = "api_usage"
    __table_args__ = (
        Index("ix_api_usage_created_at", "created_at"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(TIMESTAMPTZ, primary_key=True)
    # The client's X-Request-Id, if it sent one.
    client_request_id: Mapped[str | None] = mapped_column(Text)
    endpoint: Mapped[str] = mapped_column(Text)
    status: Mapped[int] = mapped_column(SmallInteger)
    owner: Mapped[str] = mapped_column(Text)
    session_id: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    stream: Mapped[bool]
    prompt_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    latency_ms: Mapped[float]
    time_to_first_token_ms: Mapped[float | None]
    tokens_per_second: Mapped[float | None]
    finish_reason: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(Text)
    client_address: Mapped[str | None] = mapped_column(Text)


# The owner of the rows that sum up all keys. No key can have this name.
ALL_OWNERS = ""

# The columns that are added up: those of usage_rollups, and the counts and histograms of usage_series.
ROLLUP_SUMS = (
    "requests", "prompt_tokens", "cached_tokens", "completion_tokens", "latency_us",
    "first_token_us", "first_token_requests", "rate_thousandths", "rate_requests",
)  # fmt: skip
SERIES_COUNTS = ("requests", "failed", "prompt_tokens", "completion_tokens", "sessions")
SERIES_HISTOGRAMS = ("latency", "first_token", "rate")


class UsageRollup(Base):
    """The requests of one period to one endpoint with one model, key and HTTP status.

    ``period`` is ``hour``, ``day`` or ``month``, and ``start`` its first instant in UTC. A request without a model
    counts under the empty name.
    """

    __tablename__ = "usage_rollups"

    period: Mapped[str] = mapped_column(Text, primary_key=True)
    start: Mapped[datetime] = mapped_column(TIMESTAMPTZ, primary_key=True)
    endpoint: Mapped[str] = mapped_column(Text, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    status: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    requests: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    latency_us: Mapped[int] = mapped_column(BigInteger)
    first_token_us: Mapped[int] = mapped_column(BigInteger)
    first_token_requests: Mapped[int] = mapped_column(BigInteger)
    rate_thousandths: Mapped[int] = mapped_column(BigInteger)
    rate_requests: Mapped[int] = mapped_column(BigInteger)


class UsageSeries(Base):
    """The requests of one key, or of all keys, in one period: a point of the series, with its histograms.

    A histogram counts requests by bucket (``analytics.histogram``). ``sessions`` counts the sessions whose last use
    was in the period.
    """

    __tablename__ = "usage_series"

    period: Mapped[str] = mapped_column(Text, primary_key=True)
    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    start: Mapped[datetime] = mapped_column(TIMESTAMPTZ, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    failed: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    sessions: Mapped[int] = mapped_column(BigInteger)
    latency: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    first_token: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    rate: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    # The bucket of the histogram that holds the 95th percentile of the latency; null without any request.
    p95_latency_bucket: Mapped[int | None] = mapped_column(SmallInteger)


class UsageSession(Base):
    """The hour of a session's last use."""

    __tablename__ = "usage_sessions"
    __table_args__ = (Index("ix_usage_sessions_last_hour", "last_hour"),)

    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    session_id: Mapped[str] = mapped_column(Text, primary_key=True)
    last_hour: Mapped[datetime] = mapped_column(TIMESTAMPTZ)


class UsagePruned(Base):
    """The only row says that usage rows older than ``before`` are deleted: their sums cannot be computed again."""

    __tablename__ = "usage_pruned"

    before: Mapped[datetime] = mapped_column(TIMESTAMPTZ, primary_key=True)


# For each of these metrics a row has the number of samples with a value, their sum and their peak.
GPU_METRICS = ("utilization_percent", "memory_used_bytes", "temperature_celsius", "power_milliwatts")


class GpuSeries(Base):
    """The samples of one card in one period: ``period`` is ``hour`` or ``day``, ``start`` its first instant in UTC.

    ``card`` is NVML's UUID of the card: its index may change, and several machines may record into one database. A
    peak is null where no sample has a value of the metric.
    """

    __tablename__ = "gpu_series"

    period: Mapped[str] = mapped_column(Text, primary_key=True)
    card: Mapped[str] = mapped_column(Text, primary_key=True)
    start: Mapped[datetime] = mapped_column(TIMESTAMPTZ, primary_key=True)
    card_index: Mapped[int] = mapped_column(SmallInteger)
    name: Mapped[str] = mapped_column(Text)
    memory_total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    utilization_percent_samples: Mapped[int] = mapped_column(BigInteger)
    utilization_percent_sum: Mapped[int] = mapped_column(BigInteger)
    utilization_percent_peak: Mapped[int | None] = mapped_column(BigInteger)
    memory_used_bytes_samples: Mapped[int] = mapped_column(BigInteger)
    memory_used_bytes_sum: Mapped[int] = mapped_column(BigInteger)
    memory_used_bytes_peak: Mapped[int | None] = mapped_column(BigInteger)
    temperature_celsius_samples: Mapped[int] = mapped_column(BigInteger)
    temperature_celsius_sum: Mapped[int] = mapped_column(BigInteger)
    temperature_celsius_peak: Mapped[int | None] = mapped_column(BigInteger)
    power_milliwatts_samples: Mapped[int] = mapped_column(BigInteger)
    power_milliwatts_sum: Mapped[int] = mapped_column(BigInteger)
    power_milliwatts_peak: Mapped[int | None] = mapped_column(BigInteger)
