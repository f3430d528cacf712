"""Ollama's ``context``: the numbers that ``/api/generate`` gives a client, to be sent again with its next prompt.

In Ollama they are the tokens of the conversation, and clients take them as they are (``docs/api.md``: "an encoding of
the conversation"). Here they are its messages: with them the next prompt is a chat like any other, in the model's own
template, and the conversation is recognised. The messages are JSON, compressed, three bytes in each number; before
them stand a mark, and the number of bytes. Images are left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from mistral_api.payload_types import pick
from mistral_api.payload_types.chat import ChatMessage

# No vocabulary has so many tokens: the context of another server is told from ours by it.
_MARK: Final = 1_835_101_489
_WIDTH: Final = 3
MOST_BYTES: Final = 8 << 20
_KEPT: Final = ("role", "content")


def encode_context(messages: Sequence[ChatMessage]) -> list[int]:
    """Return the texts of a conversation as numbers."""
    packed = zlib.compress(orjson.dumps([_text_alone(message) for message in messages]))
    padded = packed + bytes(-len(packed) % _WIDTH)
    numbers = [int.from_bytes(padded[at : at + _WIDTH], "big") for at in range(0, len(padded), _WIDTH)]
    return [_MARK, len(packed), *numbers]


def _text_alone(message: ChatMessage) -> ChatMessage:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if isinstance(part, dict) and part.get("type") == "text")
    return pick(message | {"content": content or ""}, _KEPT)


def decode_context(context: Sequence[int]) -> list[ChatMessage]:
    """Return the messages of a context; none of an empty one. Raises ValueError where it is none of ours."""
    if not context:
        return []
    if len(context) < len((_MARK, 0)) or context[0] != _MARK:
        raise ValueError("no mark")
    decompressor = zlib.decompressobj()
    try:
        padded = b"".join(number.to_bytes(_WIDTH, "big") for number in context[2:])
        unpacked = decompressor.decompress(padded[: context[1]], MOST_BYTES)
        messages: Any = orjson.loads(unpacked)
    except (OverflowError, zlib.error, orjson.JSONDecodeError) as error:
        raise ValueError("damaged") from error
    if not decompressor.eof or not isinstance(messages, list) or not all(map(_is_message, messages)):
        raise ValueError("damaged")
    return messages


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in _KEPT)
