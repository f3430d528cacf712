"""Reading a conversation back, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Integer, Select, Uuid, bindparam, select
from sqlalchemy.orm import Session

from mistral_api.conversations.branch import branch_messages, branch_upwards
from mistral_api.errors import NotFound
from mistral_api.tables.conversation import Conversation, Message

# Put together once: that takes longer than PostgreSQL needs to answer.
_START = bindparam("start", type_=Uuid)
_NEWEST = branch_messages(branch_upwards(_START, limit=bindparam("number", type_=Integer)))
_AFTER = branch_messages(branch_upwards(_START, stop_before=bindparam("after", type_=Uuid)))


@dataclass(frozen=True, slots=True)
class Page:
    """Some messages of a branch, oldest first; ``has_more`` says that the direction asked for goes on."""

    messages: list[Message]
    has_more: bool


def find_conversation(session: Session, owner: str, session_id: str, param: str = "session_id") -> Conversation:
    """An owner's conversation. Raises NotFound, which names ``param``, also for one that belongs to somebody else."""
    return _found(session, _named(owner, session_id), session_id, param)


def locked_conversation(session: Session, owner: str, session_id: str) -> Conversation:
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
) -> Page:
    """The newest ``limit`` messages of the current branch, or those next to a message of it.

    Raises NotFound for a message id that is not in the conversation.
    """
    start = conversation.head_id
    if before is not None:
        start = _message(session, conversation, before, "before").parent_id
    if start is None:
        return Page([], has_more=False)
    if after is not None:
        _message(session, conversation, after, "after")
        rows = list(session.scalars(_AFTER, {"start": start, "after": after}))
        return Page(rows[:limit], has_more=len(rows) > limit)
    rows = list(session.scalars(_NEWEST, {"start": start, "number": limit + 1}))
    return Page(rows[-limit:], has_more=len(rows) > limit)


def _message(session: Session, conversation: Conversation, message_id: UUID, param: str) -> Message:
    message = session.get(Message, message_id)
    if message is None or message.conversation_id != conversation.id:
        raise NotFound(f"Message with id '{message_id}' not found in this conversation.", param=param)
    return message
