"""API keys. Of a secret only its SHA-256 is stored, and its beginning, by which people tell keys apart."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from mistral_api.database.tables.base import TIMESTAMPTZ, Base


class StoredKey(Base):
    """One API key; a revoked one stays, so that its name in the statistics and in logs keeps a meaning.

    ``former_prefix``, ``former_digest`` and ``former_until`` are of the secret before the last rotation, which works
    until then. Every change of a key adds one to ``revision``, so that the sum over all keys tells whether any has
    changed, in whatever order transactions are committed. A use changes ``last_used_at`` alone.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        # A name can be used again once its key is revoked.
        Index("ix_api_keys_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    former_prefix: Mapped[str | None] = mapped_column(Text)
    former_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    former_until: Mapped[datetime | None] = mapped_column(TIMESTAMPTZ)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    requests_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_day: Mapped[int | None] = mapped_column(BigInteger)
    concurrent_requests: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(TIMESTAMPTZ)
    expires_at: Mapped[datetime | None] = mapped_column(TIMESTAMPTZ)
    revoked_at: Mapped[datetime | None] = mapped_column(TIMESTAMPTZ)
    last_used_at: Mapped[datetime | None] = mapped_column(TIMESTAMPTZ)
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
