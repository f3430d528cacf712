"""What can be retrieved by its id as it was answered: stored chat completions and responses.

Both belong to a conversation, and go with it when it is deleted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from mistral_api.database.tables.base import TIMESTAMPTZ, Base


class StoredCompletion(Base):
    """A chat completion made with ``store: true``; ``body`` is the object, ``messages`` what was sent."""

    __tablename__ = "stored_completions"
    __table_args__ = (
        Index("ix_stored_completions_owner_created_at_id", "owner", "created_at", "id"),
        Index("ix_stored_completions_conversation_id", "conversation_id"),
    )

    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(TIMESTAMPTZ)
    model: Mapped[str | None] = mapped_column(Text)
    # ``metadata`` is taken by the declarative base, so the attribute has another name than the column.
    attributes: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)
    messages: Mapped[list[Any]] = mapped_column(JSONB)
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)


class StoredResponse(Base):
    """A response; ``body`` is the object as it was answered.

    Its input and its answer are messages of its conversation: ``input_ids`` and ``answer_id`` (null where
    nothing was answered). A response that continues this one goes on from ``answer_id``. ``deleted`` ones stay,
    without their body, while others continue them.
    """

    __tablename__ = "responses"
    __table_args__ = (Index("ix_responses_conversation_id", "conversation_id"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    previous_response_id: Mapped[str | None] = mapped_column(Text)
    input_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    answer_id: Mapped[UUID | None]
    status: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIMESTAMPTZ)
    body: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))
