"""Changes the roles of messages for a chat template that would refuse them.

Templates like Mistral's demand that user and assistant alternate. Some take one system message at the beginning, some
none. Tool results, and the assistant's messages that call tools, do not count in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.conversations.history import count_leading_system_messages, is_system_message
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage
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
    allowed = list(messages) if rules.systems else _without_systems(messages, keep_first=rules.system)
    joined: list[ChatMessage] = []
    for message in allowed:
        if joined and _must_be_joined(joined[-1], message, rules):
            joined[-1] = _joined(joined[-1], message)
        else:
            joined.append(message)
    return [_without_mark(message) for message in joined]


# Marks a user's turn that was a system message; it never leaves this module.
_WAS_SYSTEM = "\0system"


def _without_systems(messages: Sequence[ChatMessage], *, keep_first: bool) -> list[ChatMessage]:
    """Turn system messages into turns of the user. With ``keep_first`` the leading ones are joined into one instead."""
    leading = count_leading_system_messages(messages) if keep_first else 0
    changed: list[ChatMessage] = []
    for message in messages[:leading]:
        changed = [_joined(changed[0], message) if changed else message]
    for message in messages[leading:]:
        changed.append({"role": "user", "content": message.get("content"), _WAS_SYSTEM: True}
                      if is_system_message(message) else message)  # fmt: skip
    return changed


def _must_be_joined(first: ChatMessage, second: ChatMessage, rules: TemplateRules) -> bool:
    if first["role"] != second["role"]:
        return False
    if first["role"] == "user":
        return rules.alternates or _WAS_SYSTEM in first
    # A message that calls tools is followed by their results; the text before the call belongs to it.
    return rules.alternates and first["role"] == "assistant" and not first.get("tool_calls")


def _joined(first: ChatMessage, second: ChatMessage) -> ChatMessage:
    """Return two messages as one, with the fields that either has."""
    joined = second | first | {"content": _joined_content(first.get("content"), second.get("content"))}
    if _WAS_SYSTEM not in second:
        joined.pop(_WAS_SYSTEM, None)
    if first.get("name") != second.get("name"):
        joined.pop("name", None)
    reasons = [message["reasoning_content"] for message in (first, second) if message.get("reasoning_content")]
    if reasons:
        joined["reasoning_content"] = BETWEEN.join(reasons)
    return joined


def _joined_content(first: Any, second: Any) -> Any:
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


def _parts(content: Any) -> list[JsonObject]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _without_mark(message: ChatMessage) -> ChatMessage:
    return (
        {name: value for name, value in message.items() if name != _WAS_SYSTEM} if _WAS_SYSTEM in message else message
    )
