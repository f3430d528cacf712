"""One conversation: finding it to change it, and rendering it for clients. ``conversation_reader`` reads it.

The messages of a conversation are a tree along ``messages.parent_id``. Its current branch is the walk from
``conversations.head_id`` up to the root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from mistral_api.conversations.session_aliases import in_session
from mistral_api.conversations.stored_message import MessageRecord, row_to_chat_message
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.errors import NotFound
from mistral_api.payload_types import JsonObject, omit
from mistral_api.payload_types.chat import ChatMessage


class MessageBody(ChatMessage):
    """A message of a conversation: a chat message, with the id, time, status and usage of the stored one.

    ``sent`` is there where its client sent more with it than the message.
    """

    id: str
    created_at: int
    model: str | None
    request_id: str
    status: str
    usage: MessageUsage | None
    sent: NotRequired[JsonObject]


class ConversationFields(TypedDict):
    """What every form of a conversation shows."""

    id: str
    object: Literal["conversation"]
    session_id: str
    title: str | None
    metadata: dict[str, str]
    created_at: int
    updated_at: int


class ConversationSummary(ConversationFields):
    """A conversation without its messages."""

    message_count: int


class ConversationBody(ConversationFields):
    """A conversation with a page of its messages."""

    messages: list[MessageBody]
    has_more: bool
    first_id: str | None
    last_id: str | None


class MessageUsage(TypedDict):
    """The tokens of a generated message."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Some messages of a branch, oldest first; ``has_more`` says whether more follow in the direction of the page."""

    messages: list[MessageRecord]
    has_more: bool


def find_conversation(session: Session, owner: str, session_id: str, param: str = "session_id") -> Conversation:
    """Return an owner's conversation. Raises NotFound, which names ``param``, also for another owner's."""
    return _find(session, _select_conversation(owner, session_id), session_id, param)


def lock_conversation(session: Session, owner: str, session_id: str) -> Conversation:
    """Return an owner's conversation, locked until this transaction ends. Raises NotFound."""
    return _find(session, _select_conversation(owner, session_id).with_for_update(), session_id)


def _select_conversation(owner: str, session_id: str) -> Select[Conversation]:
    return select(Conversation).where(Conversation.owner == owner, in_session(owner, session_id))


def _find(session: Session, query: Select[Conversation], session_id: str, param: str = "session_id") -> Conversation:
    # PostgreSQL has no NUL character, not even in a parameter.
    rows = session.scalars(query, execution_options={"populate_existing": True}) if "\0" not in session_id else None
    conversation = rows.one_or_none() if rows is not None else None
    if conversation is None:
        raise conversation_not_found(session_id, param)
    return conversation


def conversation_not_found(session_id: str, param: str = "session_id") -> NotFound:
    """Return the error for a conversation that its owner does not have."""
    return NotFound(f"Conversation with id '{session_id}' not found.", param=param)


def conversation_body(conversation: Conversation, page: MessagePage) -> ConversationBody:
    """Return a conversation with a page of its messages."""
    messages = [message_body(message) for message in page.messages]
    return {
        **_conversation_fields(conversation),
        "messages": messages,
        "has_more": page.has_more,
        "first_id": messages[0]["id"] if messages else None,
        "last_id": messages[-1]["id"] if messages else None,
    }


def conversation_summary(conversation: Conversation) -> ConversationSummary:
    """Return a conversation without its messages."""
    return {**_conversation_fields(conversation), "message_count": conversation.message_count}


def _conversation_fields(conversation: Conversation) -> ConversationFields:
    return {
        "id": conversation.session_id,
        "object": "conversation",
        "session_id": conversation.session_id,
        "title": conversation.title,
        "metadata": conversation.attributes,
        "created_at": int(conversation.created_at.timestamp()),
        "updated_at": int(conversation.updated_at.timestamp()),
    }


def message_body(message: Message | MessageRecord) -> MessageBody:
    """Return a message. Its other fields (``name``, ``tool_call_id`` …) stand beside those that every message has."""
    body: MessageBody = {
        **omit(row_to_chat_message(message), ("sent",)),  # type: ignore[typeddict-item]  # mypy takes ours for missing
        "id": str(message.id),
        "created_at": int(message.created_at.timestamp()),
        "model": message.model,
        "request_id": message.request_id,
        "status": message.status,
        "usage": _usage(message),
    }
    if message.sent:
        body["sent"] = message.sent
    return body


def _usage(message: Message | MessageRecord) -> MessageUsage | None:
    if message.prompt_tokens is None and message.completion_tokens is None:
        return None
    return {
        "prompt_tokens": message.prompt_tokens,
        "completion_tokens": message.completion_tokens,
        "total_tokens": (message.prompt_tokens or 0) + (message.completion_tokens or 0),
    }
