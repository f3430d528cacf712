"""The tensors of a llama model by its shape, with the types that llama.cpp's Q4_K_M gives them, and their bytes.

Sources: llama.cpp ``src/llama-quant.cpp`` (``use_more_bits`` and Q4_K_M's rules), ``ggml/src/ggml-common.h`` (its
``block_q4_K`` and ``block_q6_K``), ``gguf-py/gguf/constants.py`` (names of tensors, numbers of types).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class TensorType(Enum):
    """A type of weights: its number in a GGUF file, how many weights a block of it holds, and its bytes."""

    F32 = (0, 1, 4)
    Q4_K = (12, 256, 144)
    Q6_K = (14, 256, 210)

    def __init__(self, number: int, weights: int, size: int) -> None:
        self.number = number
        self.weights = weights
        self.size = size


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. ``dimensions``: the innermost one first, as in a GGUF file."""

    name: str
    type: TensorType
    dimensions: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in a file, without padding."""
        return math.prod(self.dimensions) // self.type.weights * self.type.size


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A llama model's shape. ``width``, ``inner``: of its embedding and feed-forward part; ``context``: in tokens."""

    name: str
    blocks: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    context: int

    @property
    def head_size(self) -> int:
        """The numbers of one head."""
        return self.width // self.heads

    @property
    def kv_bytes_a_token(self) -> int:
        """What a token takes in the whole KV cache, as f16."""
        return 2 * self.blocks * self.kv_heads * self.head_size * 2

    @property
    def bytes(self) -> int:
        """What all tensors take."""
        return sum(tensor.bytes for tensor in self.tensors())

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors as a Q4_K_M file has them."""
        yield Tensor("token_embd.weight", TensorType.Q4_K, (self.width, self.vocabulary))
        for block in range(self.blocks):
            yield from self._block(f"blk.{block}", _gets_more_bits(block, self.blocks))
        yield Tensor("output_norm.weight", TensorType.F32, (self.width,))
        yield Tensor("output.weight", TensorType.Q6_K, (self.width, self.vocabulary))

    def _block(self, name: str, more: bool) -> Iterator[Tensor]:
        finer = TensorType.Q6_K if more else TensorType.Q4_K
        keys = self.kv_heads * self.head_size
        yield Tensor(f"{name}.attn_norm.weight", TensorType.F32, (self.width,))
        yield Tensor(f"{name}.attn_q.weight", TensorType.Q4_K, (self.width, self.width))
        yield Tensor(f"{name}.attn_k.weight", TensorType.Q4_K, (self.width, keys))
        yield Tensor(f"{name}.attn_v.weight", finer, (self.width, keys))
        yield Tensor(f"{name}.attn_output.weight", TensorType.Q4_K, (self.width, self.width))
        yield Tensor(f"{name}.ffn_norm.weight", TensorType.F32, (self.width,))
        yield Tensor(f"{name}.ffn_gate.weight", TensorType.Q4_K, (self.width, self.inner))
        yield Tensor(f"{name}.ffn_up.weight", TensorType.Q4_K, (self.width, self.inner))
        yield Tensor(f"{name}.ffn_down.weight", finer, (self.inner, self.width))


def _gets_more_bits(block: int, blocks: int) -> bool:
    """Return whether Q4_K_M keeps a block's values and its last matrix in Q6_K: the outer eighths, and every third."""
    eighth = blocks // 8
    return block < eighth or block >= 7 * blocks // 8 or (block - eighth) % 3 == 2


# Mistral 7B Instruct v0.3; and one of a few megabytes, with which the whole measurement is tried on a processor.
SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape("mistral-7b", 32, 4096, 32, 8, 14336, 32768, 32768),
        ModelShape("tiny", 4, 256, 4, 2, 512, 4096, 32768),
    )
}
