"""Changes the roles of messages for a chat template that would refuse them.

Templates like Mistral's demand that user and assistant alternate. Some take one system message at the beginning, some
none. Tool results, and the assistant's messages that call tools, do not count in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from mistral_api.conversations.message_matching import is_system_message, leading_system_messages
from mistral_api.payload_types.chat import ChatMessage, ContentPart, MessageContent, Prompts
from mistral_api.upstream.loaded_model import TemplateRules

BETWEEN = "\n\n"


def needs_normalizing(messages: Sequence[ChatMessage]) -> bool:
    """Whether any template could refuse the order of these roles. For most requests the template is not looked up."""
    last = None
    for message in messages:
        role = message["role"]
        if role == last or is_system_message(message):
            return True
        last = role if role in ("user", "assistant") else None
    return False


def normalize_roles(messages: Sequence[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """Return the messages in a form that the template takes: unchanged where it takes them as they are.

    System text where the template does not take it becomes a turn of the user there, joined with the user's next turn.
    Neighbouring turns of one role are joined where the template demands that roles alternate.
    """
    if rules.none:
        return list(messages)
    if rules.systems:
        turns = [_Turn(message) for message in messages]
    else:
        turns = _without_systems(messages, keep_first=rules.system)
    joined: list[_Turn] = []
    for turn in turns:
        if joined and _must_be_joined(joined[-1], turn, rules):
            joined[-1] = _Turn(_joined(joined[-1].message, turn.message), turn.was_system)
        else:
            joined.append(turn)
    return [turn.message for turn in joined]


@dataclass(frozen=True, slots=True)
class _Turn:
    """A message; ``was_system``: it is a turn of the user that was, or ends with, a system message."""

    message: ChatMessage
    was_system: bool = False


def _without_systems(messages: Sequence[ChatMessage], *, keep_first: bool) -> list[_Turn]:
    """Turn system messages into turns of the user. With ``keep_first`` the leading ones are joined into one instead."""
    leading = len(leading_system_messages(messages)) if keep_first else 0
    turns = [_as_turn(message) for message in messages[leading:]]
    return [_Turn(reduce(_joined, messages[:leading])), *turns] if leading else turns


def _as_turn(message: ChatMessage) -> _Turn:
    """Return a message as it is, or a system message as a turn of the user."""
    if not is_system_message(message):
        return _Turn(message)
    return _Turn({"role": "user", "content": message.get("content")}, was_system=True)


def _must_be_joined(first: _Turn, second: _Turn, rules: TemplateRules) -> bool:
    role = first.message["role"]
    if role != second.message["role"]:
        return False
    if role == "user":
        return rules.alternates or first.was_system
    # A message that calls tools is followed by their results; the text before the call belongs to it.
    return rules.alternates and role == "assistant" and not first.message.get("tool_calls")


def _joined(first: ChatMessage, second: ChatMessage) -> ChatMessage:
    """Return two messages as one, with the fields that either has."""
    joined = second | first | {"content": _joined_content(first.get("content"), second.get("content"))}
    if first.get("name") != second.get("name"):
        joined.pop("name", None)
    reasons = [reason for message in (first, second) if (reason := message.get("reasoning_content"))]
    if reasons:
        joined["reasoning_content"] = BETWEEN.join(reasons)
    return joined


def _joined_content(first: MessageContent, second: MessageContent) -> MessageContent:
    """Join two contents: texts become one text; between parts, the texts that meet become one part."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return first + BETWEEN + second
    before, after = _parts(first), _parts(second)
    if before[-1].get("type") == after[0].get("type") == "text":
        seam = before[-1] | {"text": before[-1]["text"] + BETWEEN + after[0]["text"]}
        return [*before[:-1], seam, *after[1:]]
    return [*before, *after]


def _parts(content: str | list[ContentPart] | Prompts) -> list[ContentPart]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content if isinstance(part, dict)]
