"""Recognising messages that a client sends again.

OpenAI clients send the whole history each turn. A list that begins like the stored branch adds only
what is new; one that leaves the stored branch somewhere starts another branch there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from typing import Any

import orjson

_OPTIONS = orjson.OPT_SORT_KEYS


def message_digest(message: dict[str, Any]) -> str:
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
        return [function.get("name"), _arguments(function.get("arguments"))]
    return call


def _arguments(written: Any) -> Any:
    """Arguments are the same however they are written: a client of Anthropic's API sends them as an object again."""
    try:
        return orjson.dumps(orjson.loads(written), option=_OPTIONS).decode()
    except (orjson.JSONDecodeError, TypeError):  # no JSON, no string, or nested too deeply to be written again
        return written


def extend_chain(above: str, own: str) -> str:
    """What makes two messages the same, all that was said before them included: 32 hexadecimal digits.

    ``above`` is the chain of the message before (empty for the first), ``own`` the message's digest.
    """
    return hashlib.blake2b(f"{above}{own}".encode(), digest_size=16).hexdigest()


def message_chains(sent: Sequence[dict[str, Any]]) -> list[str]:
    """The chain of each message of a list that begins a conversation."""
    chains: list[str] = []
    for message in sent:
        chains.append(extend_chain(chains[-1] if chains else "", message_digest(message)))
    return chains


def shared_prefix_length(chains: Sequence[str], roles: Sequence[Any], known: Container[str]) -> int:
    """How many messages at the start of a sent list are a stored branch, or its beginning.

    ``known`` has the chains of the stored messages. Only a list that repeats an answer of the assistant
    proves that its client resends the history; without one the messages are new ones, and the answer is 0.
    """
    first_answer = roles.index("assistant") if "assistant" in roles else len(roles)
    return next((length for length in range(len(chains), first_answer, -1) if chains[length - 1] in known), 0)


def repeated_system_length(chains: Sequence[str], roles: Sequence[Any], known: Container[str]) -> int:
    """How many leading system messages a client without history sends again each turn."""
    length = 0
    while length < len(roles) and roles[length] in ("system", "developer") and chains[length] in known:
        length += 1
    return length
