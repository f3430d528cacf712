"""How much graphics memory a model takes, and how many of its layers a card holds.

llama.cpp puts whole layers on the card: the model's blocks from last to first, and the output as one more layer. An
offloaded block takes its weights and its part of the KV cache along::

    weights of a layer  = file size / (blocks + 1)
    KV cache of a block = 2 (keys and values) x context x KV heads x head size x 2 bytes (f16)
    all layers          = file size + blocks x KV cache of a block + reserve

The estimate is rather too high: it spreads the weights evenly over the layers, and counts the token embeddings, which
llama.cpp leaves in the machine's memory, as if they were on the card. ``RESERVE_BYTES`` stands for the driver's
context, the computation's buffers (about 300 MiB with llama.cpp's defaults) and what a desktop shows on the same card.
"""

from __future__ import annotations

from dataclasses import dataclass

from mistral_api.system.byte_sizes import GIB

# The context in tokens, which all requests share, and the sizes of cards, that estimates for people are made for.
ESTIMATE_CONTEXT = 32768
CARDS_GIB = (4, 6, 8)
RESERVE_BYTES = GIB
_F16_BYTES = 2


@dataclass(frozen=True, slots=True)
class ModelDimensions:
    """A transformer's size. A GGUF file has ``block_count``, ``attention.head_count_kv``, ``attention.key_length``."""

    blocks: int
    kv_heads: int
    head_size: int

    def kv_bytes(self, context: int) -> int:
        """Return the bytes of one block's KV cache for so many tokens."""
        return 2 * context * self.kv_heads * self.head_size * _F16_BYTES


def bytes_for_all_layers(dimensions: ModelDimensions, file_bytes: int, context: int = ESTIMATE_CONTEXT) -> int:
    """Return the memory that a card needs for the whole model with a context of so many tokens."""
    return file_bytes + dimensions.blocks * dimensions.kv_bytes(context) + RESERVE_BYTES


def gpu_layers(dimensions: ModelDimensions, file_bytes: int, card_bytes: int, context: int = ESTIMATE_CONTEXT) -> str:
    """Return the GPU_LAYERS for a card: a number of layers, or ``all``.

    ``card_bytes``: its memory, without what a projector takes of it.
    """
    if bytes_for_all_layers(dimensions, file_bytes, context) <= card_bytes:
        return "all"
    layer_bytes = file_bytes / (dimensions.blocks + 1) + dimensions.kv_bytes(context)
    available = max(0, card_bytes - RESERVE_BYTES)
    return str(min(dimensions.blocks, int(available / layer_bytes)))


def layers_by_card(
    dimensions: ModelDimensions, file_bytes: int, context: int = ESTIMATE_CONTEXT, *, beside: int = 0
) -> dict[int, str]:
    """Return the GPU_LAYERS for cards of 4, 6 and 8 GiB, by GiB.

    ``beside``: the bytes of a projector, which llama.cpp puts on the card too.
    """
    return {card: gpu_layers(dimensions, file_bytes, card * GIB - beside, context) for card in CARDS_GIB}
