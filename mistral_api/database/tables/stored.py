"""Stored chat completions and responses: objects that can be retrieved by their id as their client received them.

Both belong to a conversation, and are deleted with it.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from mistral_api.database.tables.base import TIMESTAMPTZ, Base
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import Completion
from mistral_api.payload_types.responses import Response


class StoredCompletion(Base):
    """A chat completion of a request with ``store: true``: the object (``body``) and the request's ``messages``."""

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
    attributes: Mapped[dict[str, str]] = mapped_column("metadata", JSONB)
    messages: Mapped[list[ChatMessage]] = mapped_column(JSONB)
    body: Mapped[Completion] = mapped_column(JSONB)


class StoredResponse(Base):
    """A response; ``body`` is the object as its client received it.

    Its input and its answer are messages of its conversation: ``input_ids`` and ``answer_id`` (null without an
    answer). A response that continues this one follows ``answer_id``. A ``deleted`` response stays, without its body,
    while others continue it.
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
    body: Mapped[Response | None] = mapped_column(JSONB(none_as_null=True))
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))
