"""A tiny reranker: BERT with a classification head and random weights, in the form llama.cpp reads."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, INNER, CONTEXT = 32, 2, 64, 128
# WordPiece as llama.cpp stores it (convert_hf_to_gguf.py): the first piece of a word is marked, the rest is not.
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581{word}" for word in ("cat", "dog", "sat", "the", "on", "mat"))]
LETTERS = [f"\u2581{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + list("abcdefghijklmnopqrstuvwxyz")


def write_reranker(path: Path, *, with_pooling_type: bool = True) -> Path:
    """Write the model. ``says_rank``: whether its metadata names the pooling, which some converters omit."""
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if with_pooling_type:
        writer.add_pooling_type(gguf.PoolingType.RANK)
    _add_vocabulary(writer, [*WORDS, *LETTERS])
    _add_weights(writer, len(WORDS) + len(LETTERS))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    kinds = [gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * (len(tokens) - 4)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_unk_token_id(1)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)


def _add_weights(writer: gguf.GGUFWriter, tokens: int) -> None:
    random = np.random.default_rng(1)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.5, shape).astype(np.float32))

    def add_bias(name: str, width: int) -> None:
        writer.add_tensor(f"{name}.bias", np.zeros(width, np.float32))

    add("token_embd", tokens, WIDTH)
    add("position_embd", CONTEXT, WIDTH)
    add("token_types", 2, WIDTH)
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        add_bias(name, WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.0.{name}", WIDTH, WIDTH)
        add_bias(f"blk.0.{name}", WIDTH)
    add("blk.0.ffn_up", INNER, WIDTH)
    add_bias("blk.0.ffn_up", INNER)
    add("blk.0.ffn_down", WIDTH, INNER)
    add_bias("blk.0.ffn_down", WIDTH)
    add("cls", WIDTH, WIDTH)
    add_bias("cls", WIDTH)
    add("cls.output", 1, WIDTH)
    add_bias("cls.output", 1)
