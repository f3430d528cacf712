"""A prompt in pieces that can be compared: how much of one stands in a slot already.

The hashes are the same in all processes, which that of Python is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import ChatMessage, ChatPayload

# A prompt is compared by pieces: parts of its messages, or of itself, of so many characters or tokens.
PIECE_LENGTH = 512


class Piece(NamedTuple):
    """A piece of a prompt: a hash of it, and its length.

    Only prompts of one owner are compared, so nobody gains by two pieces that have the same hash.
    """

    digest: int
    length: int


def prompt_pieces(request: ChatPayload) -> Iterator[Piece]:
    """Yield the pieces of a request's prompt in the order in which the model reads them, as far as that is known."""
    if request.get("tools"):
        yield _piece(request["tools"])
    for message in request.get("messages") or ():
        yield from _message_pieces(message)
    prompt = request.get("prompt") or request.get("input_prefix") or ()
    if isinstance(prompt, str | list):
        yield from _pieces_of(prompt)


def _message_pieces(message: ChatMessage) -> Iterator[Piece]:
    content = message.get("content")
    if not isinstance(content, str):
        yield _piece(message)
        return
    # The role makes a difference, and counts for nothing.
    yield Piece(crc32(message["role"].encode()), 0)
    yield from _pieces_of(content)
    others = omit(message, ("role", "content"))
    if others:
        yield _piece(others)


def _pieces_of(prompt: str | list[Any]) -> Iterator[Piece]:
    for start in range(0, len(prompt), PIECE_LENGTH):
        yield _piece(prompt[start : start + PIECE_LENGTH])


def _piece(value: object) -> Piece:
    encoded = orjson.dumps(value)
    return Piece(crc32(encoded), len(encoded))
