"""One conversation: find it, read its current branch, render it.

Walking a branch of a conversation's tree, from a message towards the root.

Reading a conversation back, a page at a time.

How conversations look to clients (the contract's ``conversation`` object).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, BindParameter, Integer, ScalarSelect, Select, Uuid, bindparam, literal, select
from sqlalchemy.orm import Session

from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.errors import NotFound
from mistral_api.wire import pagination


def branch_upwards(
    start: UUID | BindParameter[UUID] | ScalarSelect[UUID | None],
    *,
    limit: int | BindParameter[int] | None = None,
    stop_before: BindParameter[UUID] | None = None,
) -> CTE:
    """The walk from ``start`` towards the root: columns ``id``, ``parent_id`` and ``depth`` (0 = start).

    ``limit`` bounds the number of messages; ``stop_before`` is a message that ends the walk unseen.
    """
    first = select(Message.id, Message.parent_id, literal(0).label("depth")).where(Message.id == start)
    if stop_before is not None:
        first = first.where(Message.id != stop_before)
    walked = first.cte("branch", recursive=True)
    further = select(Message.id, Message.parent_id, walked.c.depth + 1).join(walked, Message.id == walked.c.parent_id)
    if limit is not None:
        further = further.where(walked.c.depth < limit - 1)
    if stop_before is not None:
        further = further.where(Message.id != stop_before)
    return walked.union_all(further)


def branch_messages(branch: CTE) -> Select[Message]:
    """The messages of a walk, oldest first."""
    return select(Message).join(branch, Message.id == branch.c.id).order_by(branch.c.depth.desc())


# Put together once: that takes longer than PostgreSQL needs to answer.
_START = bindparam("start", type_=Uuid)
_NEWEST = branch_messages(branch_upwards(_START, limit=bindparam("number", type_=Integer)))
_AFTER = branch_messages(branch_upwards(_START, stop_before=bindparam("after", type_=Uuid)))


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Some messages of a branch, oldest first; ``has_more`` says that the direction asked for goes on."""

    messages: list[Message]
    has_more: bool


def find_conversation(session: Session, owner: str, session_id: str, param: str = "session_id") -> Conversation:
    """An owner's conversation. Raises NotFound, which names ``param``, also for one that belongs to somebody else."""
    return _found(session, _named(owner, session_id), session_id, param)


def lock_conversation(session: Session, owner: str, session_id: str) -> Conversation:
    """An owner's conversation, for this transaction alone to change. Raises NotFound."""
    return _found(session, _named(owner, session_id).with_for_update(), session_id)


def _named(owner: str, session_id: str) -> Select[Conversation]:
    return select(Conversation).where(Conversation.owner == owner, Conversation.session_id == session_id)


def _found(session: Session, query: Select[Conversation], session_id: str, param: str = "session_id") -> Conversation:
    # PostgreSQL knows no NUL character, and cannot be asked for one.
    rows = session.scalars(query, execution_options={"populate_existing": True}) if "\0" not in session_id else None
    conversation = rows.one_or_none() if rows is not None else None
    if conversation is None:
        raise NotFound(f"Conversation with id '{session_id}' not found.", param=param)
    return conversation


def read_page(
    session: Session, conversation: Conversation, limit: int, before: UUID | None, after: UUID | None
) -> MessagePage:
    """The newest ``limit`` messages of the current branch, or those next to a message of it.

    Raises NotFound for a message id that is not in the conversation.
    """
    start = conversation.head_id
    if before is not None:
        start = _message(session, conversation, before, "before").parent_id
    if start is None:
        return MessagePage([], has_more=False)
    if after is not None:
        _message(session, conversation, after, "after")
        rows = list(session.scalars(_AFTER, {"start": start, "after": after}))
        return MessagePage(rows[:limit], has_more=len(rows) > limit)
    rows = list(session.scalars(_NEWEST, {"start": start, "number": limit + 1}))
    return MessagePage(rows[-limit:], has_more=len(rows) > limit)


def _message(session: Session, conversation: Conversation, message_id: UUID, param: str) -> Message:
    message = session.get(Message, message_id)
    if message is None or message.conversation_id != conversation.id:
        raise NotFound(f"Message with id '{message_id}' not found in this conversation.", param=param)
    return message


def conversation_body(conversation: Conversation, page: MessagePage) -> dict[str, Any]:
    """A conversation with a page of its messages."""
    shown = [message_body(message) for message in page.messages]
    return _head(conversation) | {
        "messages": shown,
        "has_more": page.has_more,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


def conversation_list_body(conversations: Sequence[Conversation], has_more: bool) -> dict[str, Any]:
    """A list of conversations without their messages."""
    return pagination.list_body([conversation_summary(each) for each in conversations], has_more, key="session_id")


def _head(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.session_id,
        "object": "conversation",
        "session_id": conversation.session_id,
        "title": conversation.title,
        "metadata": conversation.attributes,
        "created_at": int(conversation.created_at.timestamp()),
        "updated_at": int(conversation.updated_at.timestamp()),
    }


def conversation_summary(conversation: Conversation) -> dict[str, Any]:
    """A conversation without its messages."""
    return _head(conversation) | {"message_count": conversation.message_count}


def message_body(message: Message) -> dict[str, Any]:
    """A message; what else the client sent with it (``name``, ``tool_call_id`` …) stands beside the rest."""
    return (message.extra or {}) | {
        "id": str(message.id),
        "role": message.role,
        "content": message.content,
        "tool_calls": message.tool_calls,
        "created_at": int(message.created_at.timestamp()),
        "model": message.model,
        "request_id": message.request_id,
        "status": message.status,
        "usage": _usage(message),
    }


def _usage(message: Message) -> dict[str, int | None] | None:
    if message.prompt_tokens is None and message.completion_tokens is None:
        return None
    return {
        "prompt_tokens": message.prompt_tokens,
        "completion_tokens": message.completion_tokens,
        "total_tokens": (message.prompt_tokens or 0) + (message.completion_tokens or 0),
    }
