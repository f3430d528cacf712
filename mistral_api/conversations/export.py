"""Conversations as lines of JSON, one at a time: memory is that of the largest conversation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import conversation_summary, message_body
from mistral_api.database.deadlines import without_deadline
from mistral_api.database.tables.conversations import Conversation, Message

FETCHED_TOGETHER = 500
# What a line for fine-tuning may hold beside role and content (OpenAI's guide to fine-tuning, "chat format").
_TRAINED = ("name", "tool_call_id")


@dataclass(frozen=True, slots=True)
class ConversationSelection:
    """Which conversations: those used since a moment, that of a session id, or all."""

    since: datetime | None = None
    session_id: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions for a conversation to be chosen."""
        found: list[ColumnElement[bool]] = []
        if self.since is not None:
            found.append(Conversation.updated_at >= self.since)
        if self.session_id is not None:
            found.append(Conversation.session_id == self.session_id)
        return found


def count_conversations(engine: Engine, selection: ConversationSelection) -> int:
    """How many conversations are chosen. Raises sqlalchemy.exc.SQLAlchemyError."""
    with Session(engine) as session:
        return session.scalar(select(func.count(Conversation.id)).where(*selection.conditions())) or 0


def read_conversations(
    engine: Engine, selection: ConversationSelection
) -> Iterator[tuple[Conversation, list[Message]]]:
    """Each chosen conversation with all its messages in the order of arrival, the oldest conversation first.

    Raises sqlalchemy.exc.SQLAlchemyError.
    """
    found = (
        select(Conversation, Message)
        .join(Message, Message.conversation_id == Conversation.id)
        .where(*selection.conditions())
        .order_by(Conversation.created_at, Conversation.id, Message.sequence)
    )
    with Session(engine) as session, without_deadline(session):
        rows = session.execute(found, execution_options={"yield_per": FETCHED_TOGETHER})
        for conversation, pairs in groupby(rows, key=lambda row: row[0]):
            messages = [message for _, message in pairs]
            yield conversation, messages
            for message in messages:
                session.expunge(message)


def archive_line(conversation: Conversation, messages: Iterable[Message]) -> bytes:
    """Everything: every branch (``parent_id`` makes the tree), and the head of the current one."""
    line = conversation_summary(conversation) | {
        "owner": conversation.owner,
        "head_id": conversation.head_id,
        "messages": [message_body(message) | {"parent_id": message.parent_id} for message in messages],
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def fine_tuning_line(conversation: Conversation, messages: Iterable[Message]) -> bytes | None:
    """The current branch up to its last complete answer, as OpenAI takes it for training; None without one."""
    branch = [message for message in _branch(conversation, messages) if message.status == "complete"]
    while branch and branch[-1].role != "assistant":
        branch.pop()
    if not branch:
        return None
    return orjson.dumps({"messages": [_trained(message) for message in branch]}, option=orjson.OPT_APPEND_NEWLINE)


def _branch(conversation: Conversation, messages: Iterable[Message]) -> list[Message]:
    by_id = {message.id: message for message in messages}
    branch: list[Message] = []
    message = by_id.get(conversation.head_id) if conversation.head_id else None
    while message is not None:
        branch.append(message)
        message = by_id.get(message.parent_id) if message.parent_id else None
    return branch[::-1]


def _trained(message: Message) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    trained: dict[str, Any] = {"role": role, "content": message.content}
    if message.tool_calls:
        trained["tool_calls"] = message.tool_calls
    return trained | {name: value for name, value in (message.extra or {}).items() if name in _TRAINED}
