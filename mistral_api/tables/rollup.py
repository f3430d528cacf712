"""Usage summed up by hour, day and month: what ``/v1/stats`` reads, whatever the number of requests.

Every request counts in one row of each period. Sums are whole numbers (microseconds, thousandths of
a token a second), so that they come out the same in whatever order they are added.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from mistral_api.tables.base import TIMESTAMPTZ, Base

# The owner of the rows that sum up everybody; no key can have this name.
EVERYBODY = ""

# The columns that are added up: those of usage_rollups, and the numbers and the histograms of usage_series.
SUMS = (
    "requests", "prompt_tokens", "cached_tokens", "completion_tokens", "latency_us",
    "first_token_us", "first_token_requests", "rate_thousandths", "rate_requests",
)  # fmt: skip
COUNTED = ("requests", "failed", "prompt_tokens", "completion_tokens", "sessions")
HISTOGRAMS = ("latency", "first_token", "rate")


class UsageRollup(Base):
    """The requests of one period to one endpoint with one model, key and HTTP status.

    ``period`` is ``hour``, ``day`` or ``month`` and ``start`` its first instant in UTC; a request without
    a model counts under the empty name.
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
    """The requests of one period of one key, or of everybody: a point of the series, with its histograms.

    A histogram counts requests by bucket (``analytics.histogram``). ``sessions`` counts the sessions that
    were last used in the period.
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
    # Where the 95th percentile of the latency lies in its histogram; null without any request.
    p95_latency_bucket: Mapped[int | None] = mapped_column(SmallInteger)


class UsageSession(Base):
    """The hour in which a session was last used."""

    __tablename__ = "usage_sessions"
    __table_args__ = (Index("ix_usage_sessions_last_hour", "last_hour"),)

    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    session_id: Mapped[str] = mapped_column(Text, primary_key=True)
    last_hour: Mapped[datetime] = mapped_column(TIMESTAMPTZ)


class UsagePruned(Base):
    """One row: usage rows older than ``before`` have been deleted, so that their sums cannot be made again."""

    __tablename__ = "usage_pruned"

    before: Mapped[datetime] = mapped_column(TIMESTAMPTZ, primary_key=True)
