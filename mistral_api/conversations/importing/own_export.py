"""What ``mistral-api export`` writes: lines of JSON, in both of its formats (``conversations.export``).

- A line of ``jsonl`` holds a conversation exactly: with its ids, times, branches and every field of its messages.
  Lines of earlier versions have times in whole seconds.
- A line of ``openai-finetune`` holds one branch and no ids. Its session id is a hash of the opening, up to the first
  answer, and the ids of its messages are hashes of all messages before them: a longer line of the same conversation
  continues it, and a line that parts from it later becomes another branch of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from mistral_api.conversations.export import MESSAGE_FIELDS
from mistral_api.conversations.importing.imported import (
    STATUSES,
    ImportedConversation,
    ImportedMessage,
    MalformedConversation,
)
from mistral_api.conversations.importing.source_tree import (
    ImportTarget,
    SourceConversation,
    SourceNode,
    imported_conversation,
    short_hash,
)
from mistral_api.conversations.importing.source_values import count_of, object_of, objects_of, text_of
from mistral_api.conversations.message_matching import message_digest
from mistral_api.conversations.message_tree import SentAttributes
from mistral_api.payload_types import JsonObject, omit
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.wire import valid_session_id

FORMAT = "jsonl"
FINE_TUNING_FORMAT = "openai-finetune"
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def read_archive_line(value: JsonObject) -> ImportedConversation:
    """Return the conversation of a line. Raises MalformedConversation, which names the field."""
    messages = _messages(value)
    head = _optional_id(value, "head_id")
    if head is not None and head not in {message.id for message in messages}:
        raise MalformedConversation("has a 'head_id' that is none of its messages")
    metadata = object_of(value.get("metadata"))
    return ImportedConversation(
        owner=_text(value, "owner"),
        session_id=_session_id(value),
        title=_optional_text(value, "title"),
        metadata={name: each for name, each in metadata.items() if isinstance(each, str)},
        created_at=_time(value, "created_at"),
        updated_at=_time(value, "updated_at"),
        messages=messages,
        head_id=head,
    )


def _messages(value: JsonObject) -> list[ImportedMessage]:
    listed = value.get("messages")
    if not isinstance(listed, list):
        raise MalformedConversation("has no list 'messages'")
    messages: list[ImportedMessage] = []
    known: set[UUID | None] = {None}
    for number, line in enumerate(listed):
        try:
            messages.append(_message(object_of(line), known))
        except MalformedConversation as error:
            raise MalformedConversation(f"{error} in messages[{number}]") from error
        known.add(messages[-1].id)
    return messages


def _message(line: JsonObject, known: set[UUID | None]) -> ImportedMessage:
    message_id, parent = _optional_id(line, "id"), _optional_id(line, "parent_id")
    if message_id is None or message_id in known:
        raise MalformedConversation("has no 'id' of its own")
    if parent not in known:
        raise MalformedConversation("has a 'parent_id' that is no message before it")
    usage = object_of(line.get("usage"))
    return ImportedMessage(
        id=message_id,
        parent_id=parent,
        message=_chat_message(line),
        created_at=_time(line, "created_at"),
        request_id=_text(line, "request_id"),
        status=_status(line),
        model=_optional_text(line, "model"),
        prompt_tokens=count_of(usage.get("prompt_tokens")),
        completion_tokens=count_of(usage.get("completion_tokens")),
        sent=cast("SentAttributes", object_of(line.get("sent"))) or None,
        framing=_optional_id(line, "framing"),
    )


def _chat_message(line: JsonObject) -> ChatMessage:
    """Return the message as it was recorded: its own fields, and those of ``extra``, whose names are taken."""
    message: JsonObject = {**omit(line, MESSAGE_FIELDS), **object_of(line.get("extra"))}
    if not isinstance(message.get("content"), str | list | None):
        raise MalformedConversation("has a 'content' that is no text, list or null")
    if not isinstance(message.get("tool_calls"), list | None):
        raise MalformedConversation("has 'tool_calls' that are no list")
    _text(message, "role")
    return cast("ChatMessage", message)


def _session_id(value: JsonObject) -> str:
    session_id = _text(value, "session_id")
    if not valid_session_id(session_id):
        raise MalformedConversation("has a 'session_id' that is none")
    return session_id


def _status(line: JsonObject) -> str:
    status = _text(line, "status")
    if status not in STATUSES:
        raise MalformedConversation(f"has a 'status' that is none of {', '.join(STATUSES)}")
    return status


def _text(value: JsonObject, name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise MalformedConversation(f"has no text '{name}'")
    return text


def _optional_text(value: JsonObject, name: str) -> str | None:
    return None if value.get(name) is None else _text(value, name)


def _optional_id(value: JsonObject, name: str) -> UUID | None:
    text = value.get(name)
    if text is None:
        return None
    try:
        return UUID(text)
    except (ValueError, AttributeError, TypeError) as error:
        raise MalformedConversation(f"has a '{name}' that is no UUID") from error


def _time(value: JsonObject, name: str) -> datetime:
    seconds: Any = value.get(name)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise MalformedConversation(f"has no time '{name}' in Unix seconds")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise MalformedConversation(f"has a time '{name}' that is out of range") from error


def read_fine_tuning_line(value: JsonObject, target: ImportTarget) -> ImportedConversation:
    """Return the conversation of a line for fine-tuning, held now. Raises MalformedConversation."""
    messages = [_fine_tuning_message(line) for line in objects_of(value.get("messages"))]
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise MalformedConversation("has no answer")
    digests = [message_digest(message) for message in messages]
    keys = [short_hash(*digests[: number + 1]) for number in range(len(digests))]
    nodes = [
        SourceNode(key=key, parent=parent, messages=[message])
        for key, parent, message in zip(keys, [None, *keys], messages, strict=False)
    ]
    source = SourceConversation(
        format=FINE_TUNING_FORMAT,
        id=keys[roles.index("assistant")],
        title=None,
        created_at=datetime.now(UTC),
        updated_at=None,
        nodes=nodes,
        current=keys[-1],
    )
    return imported_conversation(source, target)


def _fine_tuning_message(line: JsonObject) -> ChatMessage:
    if line.get("role") not in _ROLES:
        raise MalformedConversation(f"has a message of the role '{text_of(line.get('role'))}'")
    return cast("ChatMessage", line)
