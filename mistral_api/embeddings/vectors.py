"""Embeddings as numbers: kept as the bytes of little-endian float32, OpenAI's ``base64`` without its wrapping."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Any

FLOAT_BYTES = 4


def pack_floats(embedding: Any) -> bytes:
    """One embedding as an engine sent it, a base64 string or an array. Raises ValueError for anything else."""
    try:
        raw = base64.b64decode(embedding, validate=True) if isinstance(embedding, str) else _packed_list(embedding)
    except (binascii.Error, TypeError, struct.error, OverflowError) as error:
        raise ValueError("not an embedding") from error
    if not raw or len(raw) % FLOAT_BYTES:
        raise ValueError("not an embedding")
    return raw


def _packed_list(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def vector_size(raw: bytes) -> int:
    """How many numbers it has."""
    return len(raw) // FLOAT_BYTES


def numbers(raw: bytes) -> tuple[float, ...]:
    """Its numbers. Raises ValueError where one of them is none, which JSON could not say either."""
    values = struct.unpack(f"<{vector_size(raw)}f", raw)
    if not all(map(math.isfinite, values)):
        raise ValueError("not a number")
    return values


def shortened(raw: bytes, dimensions: int) -> bytes:
    """Its first numbers, scaled to length 1 again: what OpenAI's ``dimensions`` means."""
    head = numbers(raw)[:dimensions]
    length = math.hypot(*head)
    return _packed_list([value / length for value in head]) if length else _packed_list(list(head))


def in_base64(raw: bytes) -> str:
    """As OpenAI's SDK asks for it."""
    return base64.b64encode(raw).decode("ascii")
