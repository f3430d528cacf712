"""One row for every request to the API, partitioned by month."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from mistral_api.tables.base import TIMESTAMPTZ, Base


class ApiUsage(Base):
    """What one request cost and how it ended. Token counts are null where nobody counted them."""

    __tablename__ = "api_usage"
    __table_args__ = (
        Index("ix_api_usage_created_at", "created_at"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(TIMESTAMPTZ, primary_key=True)
    # What the client sent as X-Request-Id, if it sent one.
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
