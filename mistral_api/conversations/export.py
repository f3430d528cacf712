"""Export of conversations as lines of JSON. Memory holds one conversation at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import orjson
from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.orm import Session, undefer

from mistral_api.conversations.conversation import conversation_summary, message_body
from mistral_api.conversations.session_aliases import in_session_of_any_owner
from mistral_api.conversations.stored_message import row_to_chat_message
from mistral_api.conversations.tool_items import as_function_call
from mistral_api.database.deadlines import without_deadline
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.payload_types import JsonObject, omit, pick
from mistral_api.payload_types.chat import ChatMessage

FETCH_BATCH = 500
# The fields of a message in an export that are no part of the message itself. ``extra`` has fields of the message whose
# names are among these.
MESSAGE_FIELDS = frozenset(
    ("id", "parent_id", "created_at", "model", "request_id", "status", "usage", "sent", "framing", "extra")
)
# What a message for fine-tuning may have (OpenAI's guide to fine-tuning, "chat format").
_FINE_TUNING_FIELDS = ("role", "content", "tool_calls", "name", "tool_call_id")


@dataclass(frozen=True, slots=True)
class ConversationSelection:
    """Which conversations: those used since a moment, those with a session id, those of an owner, or all."""

    since: datetime | None = None
    session_id: str | None = None
    owner: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions that a selected conversation fulfils."""
        conditions: list[ColumnElement[bool]] = []
        if self.since is not None:
            conditions.append(Conversation.updated_at >= self.since)
        if self.session_id is not None:
            conditions.append(in_session_of_any_owner(self.session_id))
        if self.owner is not None:
            conditions.append(Conversation.owner == self.owner)
        return conditions


def count_conversations(engine: Engine, selection: ConversationSelection) -> int:
    """Return how many conversations are selected. Raises sqlalchemy.exc.SQLAlchemyError."""
    with Session(engine) as session:
        return session.scalar(select(func.count(Conversation.id)).where(*selection.conditions())) or 0


def read_conversations(
    engine: Engine, selection: ConversationSelection
) -> Iterator[tuple[Conversation, list[Message]]]:
    """Yield each selected conversation with its messages in the order of arrival, the oldest conversation first.

    Raises sqlalchemy.exc.SQLAlchemyError.
    """
    query = (
        select(Conversation, Message)
        .outerjoin(Message, Message.conversation_id == Conversation.id)
        .where(*selection.conditions())
        .options(undefer(Message.framing))
        # Nothing by which it is sorted is made anew by an import, so that an export of that is the same.
        .order_by(Conversation.created_at, Conversation.owner, Conversation.session_id, Message.sequence)
    )
    with Session(engine) as session, without_deadline(session):
        rows = session.execute(query, execution_options={"yield_per": FETCH_BATCH})
        for conversation, pairs in groupby(rows, key=lambda row: row[0]):
            messages = [message for _, message in pairs if message is not None]
            yield conversation, messages
            for message in messages:
                session.expunge(message)


def archive_line(conversation: Conversation, messages: Iterable[Message]) -> bytes:
    """Return a conversation with the messages of all branches (``parent_id`` makes the tree) and its head.

    Nothing is lost: ``conversations.importing.own_export`` makes the same rows of it. Times are Unix seconds with
    microseconds.
    """
    line = {
        **conversation_summary(conversation),
        "created_at": conversation.created_at.timestamp(),
        "updated_at": conversation.updated_at.timestamp(),
        "owner": conversation.owner,
        "head_id": conversation.head_id,
        "messages": [_archive_message(message) for message in messages],
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _archive_message(message: Message) -> JsonObject:
    """Return a message with its place in the tree. ``framing`` is there if system messages were in force."""
    places = {"parent_id": message.parent_id, "created_at": message.created_at.timestamp()}
    framing = {"framing": message.framing} if message.framing is not None else {}
    extra = pick(message.extra or {}, sorted(MESSAGE_FIELDS))
    return {**message_body(message), **places, **framing, **({"extra": extra} if extra else {})}


def fine_tuning_line(conversation: Conversation, messages: Iterable[Message]) -> bytes | None:
    """Return the current branch up to its last complete answer, as OpenAI takes it for training; None without one."""
    branch = [message for message in _current_branch(conversation, messages) if message.status == "complete"]
    while branch and branch[-1].role != "assistant":
        branch.pop()
    if not branch:
        return None
    line = {"messages": [_fine_tuning_message(row_to_chat_message(message)) for message in branch]}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _current_branch(conversation: Conversation, messages: Iterable[Message]) -> list[Message]:
    by_id = {message.id: message for message in messages}
    branch: list[Message] = []
    message = by_id.get(conversation.head_id) if conversation.head_id else None
    while message is not None:
        branch.append(message)
        message = by_id.get(message.parent_id) if message.parent_id else None
    return branch[::-1]


def _fine_tuning_message(message: ChatMessage) -> ChatMessage:
    role = "system" if message["role"] == "developer" else message["role"]
    chosen = pick(message, _FINE_TUNING_FIELDS) | {"role": role}
    calls = chosen["tool_calls"]
    return chosen | {"tool_calls": list(map(as_function_call, calls))} if calls else omit(chosen, ("tool_calls",))
