"""Adding an exchange to its conversation: only what is new, on the branch it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from mistral_api.conversations.branch import branch_upwards, digests_of
from mistral_api.conversations.matching import digest, repeated_system, shared_prefix
from mistral_api.exchange import Exchange
from mistral_api.identifiers import new_id
from mistral_api.tables.conversation import Conversation, Message

TITLE_LENGTH = 80
_OWN_COLUMNS = ("role", "content", "tool_calls")


def append_exchange(session: Session, exchange: Exchange) -> None:
    """Append an exchange's messages in the session's transaction; its session must be named."""
    sent = exchange.messages or []
    conversation = _locked_conversation(session, exchange, sent)
    parent, new = _place(session, conversation, sent)
    rows = _chain(exchange, conversation.id, parent, new)
    parent = rows[-1].id if rows else parent
    answers = _answers(exchange, conversation.id, parent)
    session.add_all(rows + answers)
    # The first of several choices is the one the conversation goes on from.
    conversation.head_id = answers[0].id if answers else parent
    conversation.message_count += len(rows) + len(answers)
    conversation.updated_at = max(conversation.updated_at, _end_of(exchange))


def _end_of(exchange: Exchange) -> Any:
    return exchange.created_at + timedelta(milliseconds=exchange.latency_ms)


def _locked_conversation(session: Session, exchange: Exchange, sent: Sequence[dict[str, Any]]) -> Conversation:
    """The conversation's row, made if need be, locked until the transaction ends."""
    made = insert(Conversation).values(
        id=new_id(),
        owner=exchange.owner,
        session_id=exchange.session_id,
        title=_title(sent),
        created_at=exchange.created_at,
        updated_at=exchange.created_at,
    )
    session.execute(made.on_conflict_do_nothing(index_elements=["owner", "session_id"]))
    found = select(Conversation).where(
        Conversation.owner == exchange.owner, Conversation.session_id == exchange.session_id
    )
    return session.scalars(found.with_for_update()).one()


def _title(sent: Sequence[dict[str, Any]]) -> str | None:
    """The beginning of what the user said first."""
    for message in sent:
        content = message.get("content")
        if message.get("role") == "user" and isinstance(content, str) and content.strip():
            return " ".join(content.split())[:TITLE_LENGTH]
    return None


def _place(
    session: Session, conversation: Conversation, sent: list[dict[str, Any]]
) -> tuple[UUID | None, list[dict[str, Any]]]:
    """The message to append to, and the sent messages that are new."""
    if conversation.head_id is None:
        return None, sent
    stored = session.execute(digests_of(branch_upwards(conversation.head_id))).all()
    stored_digests = [row.digest for row in stored]
    digests, roles = [digest(message) for message in sent], [str(message.get("role")) for message in sent]
    shared = shared_prefix(stored_digests, digests, roles)
    if shared:
        return stored[shared - 1].id, sent[shared:]
    answered = [row.id for row in stored if row.status != "failed"]
    # Messages that were never answered are left as a side branch when the session goes on.
    return (answered[-1] if answered else None), sent[repeated_system(stored_digests, digests, roles) :]


def _chain(
    exchange: Exchange, conversation_id: UUID, parent: UUID | None, new: Sequence[dict[str, Any]]
) -> list[Message]:
    """The client's new messages, each the child of the one before."""
    status = "complete" if exchange.answers else exchange.answer_status
    rows: list[Message] = []
    for message in new:
        row = _row(exchange, conversation_id, rows[-1].id if rows else parent, message)
        row.status = status
        rows.append(row)
    return rows


def _answers(exchange: Exchange, conversation_id: UUID, parent: UUID | None) -> list[Message]:
    """The model's choices, siblings of each other; the request's tokens stand with the first."""
    rows = []
    for message in exchange.answers or []:
        row = _row(exchange, conversation_id, parent, {"role": "assistant"} | message)
        row.status, row.created_at, row.model = exchange.answer_status, _end_of(exchange), exchange.model
        rows.append(row)
    if rows:
        rows[0].prompt_tokens, rows[0].completion_tokens = exchange.prompt_tokens, exchange.completion_tokens
    return rows


def _row(exchange: Exchange, conversation_id: UUID, parent: UUID | None, message: dict[str, Any]) -> Message:
    extra = {name: value for name, value in message.items() if name not in _OWN_COLUMNS and value is not None}
    return Message(
        id=new_id(),
        conversation_id=conversation_id,
        parent_id=parent,
        role=message.get("role", "user"),
        content=message.get("content"),
        tool_calls=message.get("tool_calls"),
        extra=extra or None,
        digest=digest(message),
        request_id=exchange.shown_request_id,
        created_at=exchange.created_at,
    )
