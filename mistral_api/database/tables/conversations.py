"""Conversations and their messages. Both stand here, since a message never stands alone."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from mistral_api.database.tables.base import TIMESTAMPTZ, Base
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import MessageContent, ToolCall


class SearchMixin:
    """The columns by which a text is found (``conversations.search_text`` computes them); null where there is none.

    Another index, on ``search_text``, is there where PostgreSQL has the extension pg_trgm
    (``delivery.search_backfill``). ``search`` holds the words of rows that were stored before these columns were there,
    until they are filled in.
    """

    search_text: Mapped[str | None] = mapped_column(Text(collation="C"), deferred=True)
    search_grams: Mapped[list[str] | None] = mapped_column(ARRAY(Text(collation="C")), deferred=True)
    search: Mapped[str | None] = mapped_column(TSVECTOR, deferred=True)


def _search_indexes(table: str) -> tuple[Index, Index]:
    has_grams = text("search_grams IS NOT NULL")
    return (
        Index(f"ix_{table}_search_grams", "search_grams", postgresql_using="gin", postgresql_where=has_grams),
        Index(f"ix_{table}_search", "search", postgresql_using="gin"),
    )


class SearchBackfill(Base):
    """The tables with rows whose search columns are still to be filled in, from the greatest id down.

    Those from ``done_from`` on are done; null where none is.
    """

    __tablename__ = "search_backfill"

    table_name: Mapped[str] = mapped_column(Text, primary_key=True)
    done_from: Mapped[UUID | None]


class Conversation(SearchMixin, Base):
    """One session of one owner.

    ``head_id`` is the newest message of the current branch. Reading a conversation walks from it to the root along
    ``Message.parent_id``. The columns of the search are those of the title (see :class:`SearchMixin`).
    """

    __tablename__ = "conversations"
    __table_args__ = (
        UniqueConstraint("owner", "session_id"),
        Index("ix_conversations_owner_updated_at", "owner", "updated_at", "id"),
        Index("ix_conversations_updated_at", "updated_at"),
        *_search_indexes("conversations"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    session_id: Mapped[str] = mapped_column(Text)
    title: Mapped[str | None] = mapped_column(Text)
    # ``metadata`` is taken by the declarative base, so the attribute has another name than the column.
    attributes: Mapped[dict[str, str]] = mapped_column("metadata", JSONB, server_default=text("'{}'"))
    head_id: Mapped[UUID | None]
    message_count: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(TIMESTAMPTZ)
    updated_at: Mapped[datetime] = mapped_column(TIMESTAMPTZ)


class SessionAlias(Base):
    """A session id that was given out for a conversation which turned out to be another one's continuation."""

    __tablename__ = "session_aliases"
    __table_args__ = (Index("ix_session_aliases_conversation_id", "conversation_id"),)

    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    session_id: Mapped[str] = mapped_column(Text, primary_key=True)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))


class Message(SearchMixin, Base):
    """One message in a conversation's tree.

    ``content`` is a string, a list of parts or null, as the client sent it. ``status`` is ``complete``,
    ``interrupted`` (the answer was cut off) or ``failed`` (there is no answer). The columns of the search are those of
    its text (see :class:`SearchMixin`).
    """

    __tablename__ = "messages"
    __table_args__ = (
        Index("ix_messages_conversation_id_sequence", "conversation_id", "sequence"),
        Index("ix_messages_digest_conversation_id", "digest", "conversation_id"),
        Index(
            "ix_messages_cut_answers",
            "parent_id",
            postgresql_where=text("role = 'assistant' AND status = 'interrupted'"),
        ),
        *_search_indexes("messages"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    # The order of arrival, also among messages of the same instant.
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    parent_id: Mapped[UUID | None]
    role: Mapped[str] = mapped_column(Text)
    content: Mapped[MessageContent] = mapped_column(JSONB, nullable=False)
    tool_calls: Mapped[list[ToolCall] | None] = mapped_column(JSONB(none_as_null=True))
    # The other fields that the client sent: name, tool_call_id, refusal, reasoning_content ...
    extra: Mapped[JsonObject | None] = mapped_column(JSONB(none_as_null=True))
    # By its digest a message is recognised when a client sends it again (conversations.message_matching), depth counts
    # the messages with a digest above it, framing is the digest of the system messages in force. All three are null in
    # rows of older versions until their conversation is written to again.
    digest: Mapped[UUID | None] = mapped_column(deferred=True)
    depth: Mapped[int | None] = mapped_column(deferred=True)
    framing: Mapped[UUID | None] = mapped_column(deferred=True)
    # What the client sent with the turn that this message begins (conversations.message_tree.SentAttributes).
    sent: Mapped[JsonObject | None] = mapped_column(JSONB(none_as_null=True))
    status: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(TIMESTAMPTZ)
