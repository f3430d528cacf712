"""Recognising messages that a client sends again.

OpenAI clients send the whole history each turn. A list that begins like the stored branch adds only
what is new; one that leaves the stored branch somewhere starts another branch there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

_OPTIONS = orjson.OPT_SORT_KEYS


def digest(message: dict[str, Any]) -> str:
    """What makes two messages the same: role, text, tool calls and the call a tool answers."""
    essence = [
        message.get("role"),
        _plain(message.get("content")),
        [_call(call) for call in message.get("tool_calls") or []],
        message.get("tool_call_id"),
    ]
    return hashlib.blake2b(orjson.dumps(essence, option=_OPTIONS), digest_size=16).hexdigest()


def _plain(content: Any) -> Any:
    """Text in parts and text in one string are the same text; no content is empty text."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return "" if content is None else content


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(function, dict):
        return [function.get("name"), function.get("arguments")]
    return call


def shared_prefix(stored: Sequence[str], sent: Sequence[str], sent_roles: Sequence[str]) -> int:
    """How many messages at the start of ``sent`` are those at the start of the ``stored`` branch.

    Only a list that repeats an answer of the assistant proves that its client resends the history;
    without one the messages are new ones, and the answer is 0.
    """
    length = 0
    while length < min(len(stored), len(sent)) and stored[length] == sent[length]:
        length += 1
    return length if "assistant" in sent_roles[:length] else 0


def repeated_system(stored: Sequence[str], sent: Sequence[str], sent_roles: Sequence[str]) -> int:
    """How many leading system messages a client without history sends again each turn."""
    length = 0
    while (
        length < min(len(stored), len(sent))
        and sent_roles[length] in ("system", "developer")
        and stored[length] == sent[length]
    ):
        length += 1
    return length
