"""Fitting the roles of a list of messages to a chat template that would refuse it.

Templates like Mistral's take user and assistant turns only in turn; some take one system message at the beginning,
some none. They do not count tool results, nor the assistant's messages that call tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.conversations.history import count_leading_system_messages, is_system_message
from mistral_api.upstream.loaded_model import TemplateRules
from mistral_api.wire.payload_types import ChatMessage

BETWEEN = "\n\n"


def needs_normalizing(messages: Sequence[ChatMessage]) -> bool:
    """Whether any template could object to the order of these roles: most requests need no look at the template."""
    last = None
    for message in messages:
        role = message["role"]
        if role == last or is_system_message(message):
            return True
        last = role if role in ("user", "assistant") else None
    return False


def normalize_roles(messages: Sequence[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """The messages as the template takes them: the same list where it takes them as they are.

    System text that it does not take where it stands becomes a turn of the user there, joined with the next one;
    neighbouring turns of one role are joined where it demands that they alternate.
    """
    if rules.none:
        return list(messages)
    placed = list(messages) if rules.systems else _without_systems(messages, keep_first=rules.system)
    joined: list[ChatMessage] = []
    for message in placed:
        if joined and _belong_together(joined[-1], message, rules):
            joined[-1] = _joined(joined[-1], message)
        else:
            joined.append(message)
    return [_unmarked(message) for message in joined]


# Marks a user's turn that was a system message; it never leaves this module.
_WAS_SYSTEM = "\0system"


def _without_systems(messages: Sequence[ChatMessage], *, keep_first: bool) -> list[ChatMessage]:
    """System messages as turns of the user, but for those that lead, if one may: these are joined."""
    leading = count_leading_system_messages(messages) if keep_first else 0
    placed: list[ChatMessage] = []
    for message in messages[:leading]:
        placed = [_joined(placed[0], message) if placed else message]
    for message in messages[leading:]:
        placed.append({"role": "user", "content": message.get("content"), _WAS_SYSTEM: True}
                      if is_system_message(message) else message)  # fmt: skip
    return placed


def _belong_together(first: ChatMessage, second: ChatMessage, rules: TemplateRules) -> bool:
    if first["role"] != second["role"]:
        return False
    if first["role"] == "user":
        return rules.alternates or _WAS_SYSTEM in first
    # A call of tools is followed by its results; what was said before it belongs to it.
    return rules.alternates and first["role"] == "assistant" and not first.get("tool_calls")


def _joined(first: ChatMessage, second: ChatMessage) -> ChatMessage:
    """Two messages as one; what only one of them has is kept."""
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
    """Text with text is text; where there are parts, the texts at the seam become one."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return first + BETWEEN + second
    before, after = _parts(first), _parts(second)
    if before[-1].get("type") == after[0].get("type") == "text":
        seam = before[-1] | {"text": before[-1]["text"] + BETWEEN + after[0]["text"]}
        return [*before[:-1], seam, *after[1:]]
    return [*before, *after]


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _unmarked(message: ChatMessage) -> ChatMessage:
    return (
        {name: value for name, value in message.items() if name != _WAS_SYSTEM} if _WAS_SYSTEM in message else message
    )
