"""Reading conversations back, a page at a time, and deleting them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, delete, exists, select, tuple_
from sqlalchemy.orm import Session

from mistral_api.conversations.branch import branch_upwards, messages_of
from mistral_api.errors import NotFound
from mistral_api.tables.conversation import Conversation, Message


@dataclass(frozen=True, slots=True)
class Page:
    """Some messages of a branch, oldest first; ``has_more`` says that the direction asked for goes on."""

    messages: list[Message]
    has_more: bool


def find_conversation(session: Session, owner: str, session_id: str) -> Conversation:
    """An owner's conversation. Raises NotFound, also for one that belongs to somebody else."""
    found = select(Conversation).where(Conversation.owner == owner, Conversation.session_id == session_id)
    conversation = session.scalars(found).one_or_none()
    if conversation is None:
        raise NotFound(f"Conversation with id '{session_id}' not found.", param="session_id")
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
        rows = list(session.scalars(messages_of(branch_upwards(start, stop_before=after))))
        return Page(rows[:limit], has_more=len(rows) > limit)
    rows = list(session.scalars(messages_of(branch_upwards(start, limit=limit + 1))))
    return Page(rows[-limit:], has_more=len(rows) > limit)


def _message(session: Session, conversation: Conversation, message_id: UUID, param: str) -> Message:
    message = session.get(Message, message_id)
    if message is None or message.conversation_id != conversation.id:
        raise NotFound(f"Message with id '{message_id}' not found in this conversation.", param=param)
    return message


def list_conversations(session: Session, owner: str, query: dict[str, Any]) -> tuple[list[Conversation], bool]:
    """An owner's conversations, the last used first, and whether there are more.

    ``query`` holds ``limit`` and maybe ``after`` (a session id), ``q`` (text to find) and ``since``
    (Unix seconds).
    """
    newest = tuple_(Conversation.updated_at, Conversation.id)
    found = select(Conversation).where(Conversation.owner == owner)
    if query.get("after"):
        last = find_conversation(session, owner, query["after"])
        found = found.where(newest < tuple_(last.updated_at, last.id))
    if query.get("since") is not None:
        found = found.where(Conversation.updated_at >= datetime.fromtimestamp(query["since"], UTC))
    if query.get("q"):
        found = found.where(_says(query["q"]))
    found = found.order_by(Conversation.updated_at.desc(), Conversation.id.desc())
    rows = list(session.scalars(found.limit(query["limit"] + 1)))
    return rows[: query["limit"]], len(rows) > query["limit"]


def _says(words: str) -> Any:
    """Whether a message or the title of the conversation holds these words, in any case."""
    in_message = exists().where(
        Message.conversation_id == Conversation.id,
        # ``#>> '{}'`` is the text of a JSON string without its quotes and escapes.
        cast(Message.content.op("#>>")("{}"), Text).icontains(words, autoescape=True),
    )
    return in_message | Conversation.title.icontains(words, autoescape=True)


def delete_conversation(session: Session, owner: str, session_id: str) -> None:
    """Delete a conversation with its messages; its usage rows keep their figures. Raises NotFound."""
    conversation = find_conversation(session, owner, session_id)
    session.execute(delete(Conversation).where(Conversation.id == conversation.id))
    session.commit()
