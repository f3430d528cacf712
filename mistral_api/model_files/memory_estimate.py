"""Graphics memory a model takes; sizes as text.

Numbers of bytes, for people.

How much graphics memory a model takes, and how many of its layers a card holds.

llama.cpp puts whole layers on the card: the model's blocks, last to first, and as one more layer the output. An
offloaded block takes its weights and its part of the KV cache along::

    weights of a layer  = file size / (blocks + 1)
    KV cache of a block = 2 (keys and values) x context x KV heads x head size x 2 bytes (f16)
    all layers          = file size + blocks x KV cache of a block + reserve

The weights are taken as spread evenly, and the token embeddings, which llama.cpp leaves in the computer's memory, as
if they were on the card: the true need is rather less. ``RESERVE_BYTES`` stands for the driver's context, the buffers
of the computation (some 300 MiB with llama.cpp's defaults) and what a desktop shows on the same card.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
MIB = 1 << 20


def format_size(count: int) -> str:
    """Such as ``4.07 GiB``; below one GiB in MiB."""
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"


ESTIMATE_CONTEXT = 8192
CARDS_GIB = (4, 6, 8)
RESERVE_BYTES = GIB
_F16_BYTES = 2


@dataclass(frozen=True, slots=True)
class ModelDimensions:
    """A transformer's measures; in a GGUF ``block_count``, ``attention.head_count_kv``, ``attention.key_length``."""

    blocks: int
    kv_heads: int
    head_size: int

    def kv_bytes(self, context: int) -> int:
        """The KV cache of one block for so many tokens."""
        return 2 * context * self.kv_heads * self.head_size * _F16_BYTES


def bytes_for_all_layers(architecture: ModelDimensions, file_bytes: int, context: int = ESTIMATE_CONTEXT) -> int:
    """What a card must have for the whole model with a context of so many tokens."""
    return file_bytes + architecture.blocks * architecture.kv_bytes(context) + RESERVE_BYTES


def gpu_layers(architecture: ModelDimensions, file_bytes: int, card_bytes: int, context: int = ESTIMATE_CONTEXT) -> str:
    """What to give as GPU_LAYERS for a card: a number of layers, or ``all``."""
    if bytes_for_all_layers(architecture, file_bytes, context) <= card_bytes:
        return "all"
    block = file_bytes / (architecture.blocks + 1) + architecture.kv_bytes(context)
    room = max(0, card_bytes - RESERVE_BYTES)
    return str(min(architecture.blocks, int(room / block)))


def layers_by_card(architecture: ModelDimensions, file_bytes: int, context: int = ESTIMATE_CONTEXT) -> dict[int, str]:
    """GPU_LAYERS for cards of 4, 6 and 8 GiB."""
    return {card: gpu_layers(architecture, file_bytes, card * GIB, context) for card in CARDS_GIB}
