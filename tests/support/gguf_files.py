"""Write small GGUF files in the layout of llama.cpp's ``ggml/include/gguf.h``."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

U32, STRING, ARRAY = 4, 8, 9
LLAMA: Mapping[str, str | int] = {
    "general.architecture": "llama",
    "general.file_type": 15,
    "llama.block_count": 32,
    "llama.context_length": 4096,
}


def write_gguf(
    path: Path, metadata: Mapping[str, str | int | list[str]] = LLAMA, tensors: Sequence[int] = (64,), version: int = 3
) -> Path:
    """Write a file with this metadata and F32 tensors of the given numbers of values; return its path."""
    path.write_bytes(gguf_bytes(metadata, tensors, version))
    return path


def random_model(seed: int, values: int = 100_000) -> bytes:
    """Return a whole file whose weights are random, with so many of them."""
    empty = gguf_bytes(tensors=(values,))
    return empty[: -4 * values] + random.Random(seed).randbytes(4 * values)


def gguf_bytes(
    metadata: Mapping[str, str | int | list[str]] = LLAMA, tensors: Sequence[int] = (64,), version: int = 3
) -> bytes:
    """Return a file with this metadata and F32 tensors of the given numbers of values."""
    head = b"GGUF" + struct.pack("<Iqq", version, len(tensors), len(metadata))
    head += b"".join(encode_string(name) + _value(value) for name, value in metadata.items())
    offset = 0
    for number, values in enumerate(tensors):
        head += encode_string(f"tensor{number}") + struct.pack("<IqIQ", 1, values, 0, offset)
        offset += -(-values * 4 // 32) * 32
    head += bytes(-len(head) % 32)
    return head + bytes(offset)


def encode_string(text: str) -> bytes:
    """Return a GGUF string: its length as 64 bits, and its bytes."""
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: str | int | list[str]) -> bytes:
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + encode_string(value)
    return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(encode_string, value))
