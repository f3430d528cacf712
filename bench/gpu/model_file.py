"""Write a model of a given shape with random weights, as a GGUF file that llama.cpp loads and generates with.

The weights mean nothing, so neither does the text. How fast a card computes, and what it needs, depend on the shape
alone. A stretch of random blocks is written again and again: four gigabytes take seconds, and need no package.
"""

from __future__ import annotations

import functools
import itertools
import random
import string
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

from bench.gpu.model_shape import ModelShape, Tensor, TensorType

# Types of values in a GGUF file's metadata (ggml/include/gguf.h), and kinds of tokens (include/llama.h).
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_ALIGNMENT = 32
# Random blocks are repeated after so many. No number of blocks of a row divides it.
_BLOCKS = 99_991
# A space within a token, as SentencePiece writes it.
_SPACE = "\u2581"
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    " {{ message['content'] }}{{ eos_token }}{% else %}[INST] {{ message['content'] }} [/INST]{% endif %}{% endfor %}"
)

Value: TypeAlias = "int | float | bool | str | Sequence[str] | Sequence[int] | Sequence[float]"


def write_model(path: Path, shape: ModelShape) -> Path:
    """Write the model, unless the file is there already, and return its path."""
    tensors = list(shape.tensors())
    head = _head(shape, tensors)
    size = len(head) + sum(_padded(tensor.bytes) for tensor in tensors)
    if path.exists() and path.stat().st_size == size:
        return path
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(head)
        for tensor in tensors:
            _write_weights(file, tensor, shape.width)
            file.write(bytes(_padded(tensor.bytes) - tensor.bytes))
    return unfinished.replace(path)


def _head(shape: ModelShape, tensors: list[Tensor]) -> bytes:
    metadata = _metadata(shape)
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += [_string(name) + _value(value) for name, value in metadata.items()]
    offset = 0
    for tensor in tensors:
        dimensions = struct.pack(f"<I{len(tensor.dimensions)}Q", len(tensor.dimensions), *tensor.dimensions)
        parts.append(_string(tensor.name) + dimensions + struct.pack("<IQ", tensor.type.number, offset))
        offset += _padded(tensor.bytes)
    head = b"".join(parts)
    return head + bytes(_padded(len(head)) - len(head))


def _metadata(shape: ModelShape) -> dict[str, Value]:
    tokens, kinds = vocabulary(shape.vocabulary)
    return {
        "general.architecture": "llama",
        "general.name": f"{shape.name} with random weights",
        "general.file_type": 15,  # Q4_K_M
        "general.quantization_version": 2,
        "llama.block_count": shape.blocks,
        "llama.context_length": shape.context,
        "llama.embedding_length": shape.width,
        "llama.feed_forward_length": shape.inner,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.head_size,
        "llama.rope.freq_base": 1e6,
        "llama.vocab_size": shape.vocabulary,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(number) for number in range(len(tokens))],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": _TEMPLATE,
    }


def vocabulary(size: int) -> tuple[list[str], list[int]]:
    """Return the tokens and their kinds, as a SentencePiece model has them: marks, bytes, then pieces of words.

    A piece can be merged from two that come before it.
    """
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
    pieces = list(itertools.islice(_pieces(), size - len(tokens)))
    return tokens + pieces, kinds + [_NORMAL] * len(pieces)


def _pieces() -> Iterator[str]:
    yield _SPACE
    yield from string.ascii_letters + string.digits + string.punctuation
    letters = string.ascii_lowercase
    for length in (1, 2, 3):
        for word in itertools.product(letters, repeat=length):
            if length > 1:
                yield "".join(word)
            yield _SPACE + "".join(word)


def _write_weights(file: BinaryIO, tensor: Tensor, width: int) -> None:
    if tensor.type is TensorType.F32:  # all of them are norms
        file.write(struct.pack("<f", 1.0) * (tensor.bytes // 4))
        return
    stretch, left = memoryview(_random_blocks(tensor.type, width)), tensor.bytes
    while left:
        left -= file.write(stretch[:left])


@functools.cache
def _random_blocks(kind: TensorType, width: int) -> bytes:
    """Return so many random blocks that their numbers lie around 0, as far from it as a trained model's."""
    blocks = bytearray(random.Random(kind.number).randbytes(_BLOCKS * kind.size))  # noqa: S311 - no secret
    for offset, scale in _scales(kind, width).items():
        low, high = struct.pack("<e", scale)
        blocks[offset :: kind.size] = bytes([low]) * _BLOCKS
        blocks[offset + 1 :: kind.size] = bytes([high]) * _BLOCKS
    return bytes(blocks)


def _scales(kind: TensorType, width: int) -> dict[int, float]:
    """Return the half-precision scales of a block, by their place in it.

    A random block of Q4_K has numbers of ``d x scale x q - dmin x m`` with a standard deviation of 258 d where dmin is
    7.5 d, and one of Q6_K of 1370 d. That of a row's weights is to be one by the square root of the row's length.
    """
    deviation = width**-0.5
    if kind is TensorType.Q4_K:
        return {0: deviation / 258, 2: 7.5 * deviation / 258}
    return {208: deviation / 1370}


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _value(value: Value) -> bytes:
    if isinstance(value, (bool, int, float, str)):
        kind, content = _scalar(value)
        return struct.pack("<I", kind) + content
    items = [_scalar(item, whole=_I32) for item in value]
    return struct.pack("<IIQ", _ARRAY, items[0][0], len(items)) + b"".join(content for _, content in items)


def _scalar(value: float | str, whole: int = _U32) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return _BOOL, struct.pack("<?", value)
    if isinstance(value, str):
        return _STRING, _string(value)
    return (whole, struct.pack("<i", value)) if isinstance(value, int) else (_F32, struct.pack("<f", value))
