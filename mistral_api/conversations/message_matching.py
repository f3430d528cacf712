"""The digest of a message: by it a message is recognised when a client sends it again.

Clients send back what they have made of a message. The digest therefore covers what was meant, and not the bytes:

- text without white space at its ends, with LF as the end of a line, in Unicode's form NFC;
- an answer without its reasoning, which clients strip: ``reasoning_content``, and what stands between ``<think>`` and
  ``</think>`` or one of the other pairs of :data:`_REASONING`;
- a string, or the same text in parts; nothing, whether as null, as an empty text or as an absent field;
- ``developer`` is ``system``, ``function`` is ``tool``, a ``function_call`` is a tool call;
- the name and the arguments of a tool call, in whatever order and with whatever blanks these are written, and not its
  id: some clients give calls ids of their own; of a call that stands for an item of its own (``ToolCall.item``) without
  the arguments that are null or empty, which a client gets and sends where the model wrote none;
- an attachment as the hash of its data, whether the data is there or, in a stored message, its placeholder.

Messages that instruct the model (``system``) have no digest: clients add, change and drop them between the turns, and
they neither match nor keep others from matching.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, Final

import orjson

from mistral_api.conversations.search_text import compose
from mistral_api.payload_types.chat import ChatMessage, MessageContent, ToolCall
from mistral_api.recording.exchange import attachment_hash

# What a message without a digest has in its place: it matches nothing.
NO_DIGEST: Final = ""

_SORTED = orjson.OPT_SORT_KEYS
_ROLES = {"developer": "system", "function": "tool"}
# Beginning and end of what models write before their answer: the think tags of DeepSeek's and Qwen's templates and
# their relatives, Mistral's template for Magistral, and the block into which Open WebUI turns them
# (backend/open_webui/utils/middleware.py, DEFAULT_REASONING_TAGS and serialize_content_blocks).
_REASONING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reason>", "</reason>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ('<details type="reasoning"', "</details>"),
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def message_digest(message: ChatMessage) -> str:
    """Return the digest of a message, 32 hexadecimal digits; ``NO_DIGEST`` for a system message."""
    role = _ROLES.get(message["role"], message["role"])
    if role == "system":
        return NO_DIGEST
    return _hash([role, _normalize_content(message), _normalize_calls(message)])


def system_digest(messages: list[ChatMessage]) -> str:
    """Return one digest of system messages, or of others that stand before the chat, in their order."""
    return _hash([_normalize_content(message) for message in messages])


def _hash(value: object) -> str:
    return hashlib.blake2b(orjson.dumps(value, option=_SORTED), digest_size=16).hexdigest()


def is_system_message(message: ChatMessage) -> bool:
    """Return whether a message instructs the model (OpenAI's newer name of the role is ``developer``)."""
    return message["role"] in ("system", "developer")


def leading_system_messages(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the system messages that a list begins with."""
    return list(takewhile(is_system_message, messages))


def normalized_text(message: ChatMessage) -> str:
    """Return the text of a message as it is compared; an attachment is no text."""
    content = _normalize_content(message)
    return content if isinstance(content, str) else ""


def _normalize_content(message: ChatMessage) -> object:
    """Return a text, or a list of texts and attachments where there are any; an empty text where there is nothing."""
    is_answer = message["role"] == "assistant"
    content = message.get("content")
    if isinstance(content, str):
        return _normalize_text(content, is_answer)
    parts = _join_texts(content)
    refusal = message.get("refusal")
    if not parts and isinstance(refusal, str):
        parts = [refusal]
    normalized = [_normalize_text(part, is_answer) if isinstance(part, str) else part for part in parts]
    normalized = [part for part in normalized if part != ""]
    if not normalized:
        return ""
    return normalized[0] if len(normalized) == 1 and isinstance(normalized[0], str) else normalized


def _join_texts(content: MessageContent) -> list[Any]:
    """Return a content as a list in which texts that follow one another are one."""
    if not isinstance(content, list):
        return [] if content is None else [content]
    joined: list[Any] = []
    for part in content:
        text = _text_of(part)
        if text is None:
            joined.append(_normalize_part(part))
        elif joined and isinstance(joined[-1], str):
            joined[-1] += text
        else:
            joined.append(text)
    return joined


def _text_of(part: Any) -> str | None:
    if not isinstance(part, dict) or part.get("type") not in ("text", "refusal"):
        return None
    text = part.get(part["type"])
    return text if isinstance(text, str) else ""


def _normalize_part(part: Any) -> Any:
    """Return an attachment by its hash, and anything else as it is; a token of a prompt is not a text."""
    if not isinstance(part, dict):
        return ["prompt", part]
    hashed = attachment_hash(part)
    return part if hashed is None else [part.get("type"), hashed]


def _normalize_text(text: str, is_answer: bool) -> str:
    if is_answer:
        text = _without_reasoning(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        # Half a surrogate pair is recorded as a question mark; a NUL character, below, as U+FFFD.
        text = compose(_SURROGATES.sub("?", text))
    return text.replace("\0", "\ufffd").strip()


def _without_reasoning(text: str) -> str:
    """Return the text of an answer without the reasoning that it begins with, also where its tag is cut off."""
    if "<" not in text and "[" not in text:
        return text
    beginning = text.lstrip()
    for opening, ending in _REASONING:
        begun = beginning.startswith(opening)
        if begun or (ending in text and opening not in text and not ending.startswith("</details")):
            before, found, after = text.partition(ending)
            return after if found else ("" if begun else before)
    return text


def _normalize_calls(message: ChatMessage) -> list[object]:
    """Return the name and the arguments of each tool call, the one of a ``function_call`` too."""
    calls = [_normalize_call(call) for call in message.get("tool_calls") or [] if isinstance(call, dict)]
    single = message.get("function_call")
    return [*calls, _normalize_function(single)] if single else calls


def _normalize_call(call: ToolCall) -> object:
    custom = call.get("custom")
    if call.get("type") == "custom" and isinstance(custom, dict):
        return [custom.get("name"), "custom", custom.get("input")]
    normalized = _normalize_function(call.get("function"))
    if "item" not in call or not isinstance(normalized, list):
        return normalized
    name, arguments = normalized
    with suppress(orjson.JSONDecodeError):
        decoded = orjson.loads(arguments)
        if isinstance(decoded, dict):
            said = {each: value for each, value in decoded.items() if value not in (None, {}, "")}
            return [name, orjson.dumps(said, option=_SORTED).decode()]
    return normalized


def _normalize_function(function: Any) -> object:
    if not isinstance(function, dict):
        return function
    return [function.get("name"), _normalize_arguments(function.get("arguments"))]


def _normalize_arguments(arguments: Any) -> Any:
    """Return arguments in one spelling: a client of Anthropic's API gets and resends them as an object.

    No arguments are an empty object.
    """
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return "{}"
    try:
        decoded = orjson.loads(arguments) if isinstance(arguments, str | bytes) else arguments
        return compose(orjson.dumps(decoded, option=_SORTED).decode())
    except (orjson.JSONDecodeError, TypeError):  # no JSON, or nested too deeply to be written again
        return arguments
