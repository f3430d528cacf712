"""A stored message in its four forms: a row as it is read, a chat message, one for the model, and items."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Protocol, TypedDict, cast
from uuid import UUID

from mistral_api.conversations.item_parser import prompt_texts
from mistral_api.conversations.item_renderer import message_to_items
from mistral_api.database.tables.conversations import Message
from mistral_api.payload_types import JsonObject, without_nulls
from mistral_api.payload_types.chat import ChatMessage, ContentPart, MessageContent, ToolCall
from mistral_api.payload_types.completions import GeneratedMessage
from mistral_api.payload_types.responses import Item
from mistral_api.recording.exchange import describe_omitted_attachments


class MessageRow(Protocol):
    """A row with the columns of ``messages`` that make a chat message; ``extra`` has its other fields."""

    role: str
    content: MessageContent
    tool_calls: list[ToolCall] | None
    extra: JsonObject | None


@dataclass(slots=True)
class MessageRecord:
    """A message as it is read: those columns of ``messages`` that it is shown with.

    It is no :class:`Message`, since a long conversation is read with each turn, and an object of the mapper takes ten
    times as long to make.
    """

    id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    role: str
    content: MessageContent
    tool_calls: list[ToolCall] | None
    extra: JsonObject | None
    sent: JsonObject | None
    status: str
    request_id: str
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    created_at: datetime


MESSAGE_COLUMNS = tuple(each.name for each in fields(MessageRecord))


class MessageColumns(TypedDict):
    """A chat message as columns of ``messages``."""

    role: str
    content: MessageContent
    tool_calls: list[ToolCall] | None
    extra: JsonObject | None


def row_to_chat_message(row: MessageRow) -> ChatMessage:
    """Return a row as the chat message that was recorded."""
    extra = cast("ChatMessage", row.extra or {})  # the fields that columns do not hold
    return {**extra, "role": row.role, "content": row.content, "tool_calls": row.tool_calls}


def assistant_message(generated: GeneratedMessage) -> ChatMessage:
    """Return what the model has generated as a message of a chat."""
    return cast("ChatMessage", {"role": "assistant", **generated})


def chat_message_to_columns(message: ChatMessage) -> MessageColumns:
    """Return a chat message as columns; null fields are left out of ``extra``."""
    columns = ("role", "content", "tool_calls")
    extra = {name: value for name, value in message.items() if name not in columns and value is not None}
    return {
        "role": message.get("role", "user"),
        "content": message.get("content"),
        "tool_calls": message.get("tool_calls"),
        "extra": extra or None,
    }


def prompt_message(message: ChatMessage) -> ChatMessage:
    """Return a recorded message as the model gets it again. Nothing in it is null but the content.

    It is the same, to the byte, wherever the message was read: the model server reuses the beginning of a prompt that
    it has processed before.
    """
    calls = [without_nulls(call) for call in message.get("tool_calls") or []]
    content = _content_parts(describe_omitted_attachments(message.get("content")))
    prompt = without_nulls(message) | {"content": content}
    prompt.pop("tool_calls", None)
    return prompt | ({"tool_calls": calls} if calls else {})


def _content_parts(content: MessageContent) -> MessageContent:
    """Return the prompts of a legacy completion, which are no content of a chat, as text parts."""
    if not isinstance(content, list) or all(isinstance(part, dict) for part in content):
        return content
    parts: list[ContentPart] = [{"type": "text", "text": text} for text in prompt_texts(content)]
    return parts


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A chat message under the id of its row; ``status`` is that of its items."""

    id: UUID
    message: ChatMessage
    status: str = "completed"

    @classmethod
    def from_row(cls, row: Message | MessageRecord) -> StoredMessage:
        """Return a row as a stored message. The items of an answer that was cut off are ``incomplete``."""
        incomplete = row.role == "assistant" and row.status != "complete"
        return cls(row.id, row_to_chat_message(row), "incomplete" if incomplete else "completed")

    @property
    def items(self) -> list[Item]:
        """The message as items."""
        return message_to_items(self.id, self.message, self.status)
