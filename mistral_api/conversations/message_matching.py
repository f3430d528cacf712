"""Recognising the messages that a client sends again.

OpenAI clients send the whole history each turn, and only its end is new. To find the new messages, a sent list is
compared with the stored messages of its session by two hashes:

- The *digest* of a message covers its role, text, tool calls and the call that it answers.
- The *chain* of a message covers its digest and the chain of the message before it, so it stands for the whole list
  up to that message. Every stored message has its chain (``messages.chain``). Whether a sent list repeats a stored
  branch, of all the branches of a conversation, is then one look-up for each sent message.

A list counts as resent history only if it repeats an answer of the assistant. A client without a history may send the
same system message, or ask the same question, twice; that is no history. Suppose that a session has stored
``S U1 A1 U2 A2`` (system message, two turns of user and assistant). Then a client that sends

- ``S U1 A1 U2 A2 U3`` repeats five messages; ``U3`` is new, below ``A2``.
- ``S U1 A1 U9`` repeats three messages; ``U9`` is new, below ``A1``: it begins another branch.
- ``S U3`` repeats no answer; ``U3`` is new, below the last answer, and ``S`` is not stored again.
- ``S' U1 A1`` repeats nothing, since every chain covers the changed system message; all three are new.

``message_tree`` uses this when an exchange is stored, ``history`` when a request asks for the stored history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from typing import Any

import orjson

from mistral_api.payload_types.chat import ChatMessage, MessageContent

_SORTED = orjson.OPT_SORT_KEYS


def message_digest(message: ChatMessage) -> str:
    """Return the hash of a message: of its role, text, tool calls and the call that a tool answers."""
    parts = [
        message.get("role"),
        _normalize_content(message.get("content")),
        [_normalize_call(call) for call in message.get("tool_calls") or []],
        message.get("tool_call_id"),
    ]
    return hashlib.blake2b(orjson.dumps(parts, option=_SORTED), digest_size=16).hexdigest()


def _normalize_content(content: MessageContent) -> object:
    """Return text in parts as one string, and no content as empty text."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else content


def _normalize_call(call: object) -> object:
    """Return the name and arguments of a tool call. Clients change its other fields."""
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(function, dict):
        return [function.get("name"), _normalize_arguments(function.get("arguments"))]
    return call


def _normalize_arguments(arguments: Any) -> Any:
    """Return arguments in one spelling: a client of Anthropic's API gets and resends them as an object."""
    try:
        return orjson.dumps(orjson.loads(arguments), option=_SORTED).decode()
    except (orjson.JSONDecodeError, TypeError):  # no JSON, no string, or nested too deeply to be written again
        return arguments


def extend_chain(parent_chain: str, digest: str) -> str:
    """Return the chain of a message, 32 hexadecimal digits.

    ``parent_chain`` is the chain of the message before it, empty for the first one; ``digest`` is the message's own.
    """
    return hashlib.blake2b(f"{parent_chain}{digest}".encode(), digest_size=16).hexdigest()


def message_chains(messages: Sequence[ChatMessage]) -> list[str]:
    """Return the chain of each message of a list that begins a conversation."""
    chains: list[str] = []
    for message in messages:
        chains.append(extend_chain(chains[-1] if chains else "", message_digest(message)))
    return chains


def shared_prefix_length(chains: Sequence[str], roles: Sequence[str | None], stored: Container[str]) -> int:
    """Return how many messages at the start of a sent list repeat a stored branch, 0 where no answer is among them.

    ``chains`` and ``roles`` are those of the sent messages, ``stored`` the chains of the stored ones.
    """
    first_answer = roles.index("assistant") if "assistant" in roles else len(roles)
    return next((length for length in range(len(chains), first_answer, -1) if chains[length - 1] in stored), 0)


def repeated_system_length(chains: Sequence[str], roles: Sequence[str | None], stored: Container[str]) -> int:
    """Return how many system messages at the start of a sent list are stored already.

    A client without a history sends them each turn. The parameters are those of :func:`shared_prefix_length`.
    """
    length = 0
    while length < len(roles) and roles[length] in ("system", "developer") and chains[length] in stored:
        length += 1
    return length
