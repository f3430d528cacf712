"""The model of trials: one layer of zeros behind the vocabulary of the model served.

llama.cpp's real sampler runs on it as it does on the model served, since a sampler knows nothing of a model but its
vocabulary. All tokens are equally likely, so nearly every token that is sampled has to be checked against the whole
vocabulary. The file is a few MiB of metadata and a hole; it loads in about 0.1 s.

Its layout is that of llama.cpp's ``ggml/include/gguf.h``; the names are those of the architecture ``llama``
(gguf-py, constants.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import random
import string
import struct
from collections.abc import Iterable
from pathlib import Path

from mistral_api.model_files.gguf import DEFAULT_ALIGNMENT, MAGIC, GgufError, Tokenizer, read_tokenizer
from mistral_api.system.files import move_file

_U32, _F32, _STRING, _ARRAY, _I32 = 4, 6, 8, 9, 5
_TENSOR_F32, _TENSOR_F16 = 0, 1
_WIDTH = 32
CONTEXT = 2048
# The types of tokens (llama.h, ``enum llama_token_type``).
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_RANDOM_WORDS = 9_000


def vocabulary_version(model: Path | None) -> str:
    """Return what tells one vocabulary from another: the model's path, size and time in twelve hexadecimal digits."""
    try:
        status = model.stat() if model is not None else None
    except OSError:
        status = None
    known = f"{model}:{status.st_size}:{status.st_mtime_ns}" if status is not None else "plain"
    return hashlib.blake2b(known.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def write_trial_model(model: Path | None, folder: Path) -> Path:
    """Write the model of trials into a folder, unless it is there, and return its path. Raises OSError.

    ``model``: the model served. Where there is none, or its tokenizer cannot be read, it gets a vocabulary of ours.
    """
    path = folder / f"trial-{vocabulary_version(model)}.gguf"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = folder / f"trial-{os.getpid()}.new"
    _write(new, _tokenizer_of(model))
    move_file(new, path)
    for other in folder.glob("trial-*.gguf"):
        if other != path:
            with contextlib.suppress(OSError):  # another process may use it, and Windows keeps it then
                other.unlink()
    return path


def _tokenizer_of(model: Path | None) -> Tokenizer:
    if model is not None:
        with contextlib.suppress(OSError, GgufError):  # then the plain one serves
            return read_tokenizer(model)
    return plain_tokenizer()


def plain_tokenizer() -> Tokenizer:
    """Return a vocabulary of 37,000 bytes, words short and long, numbers, blanks and marks of JSON."""
    words = dict.fromkeys(_plain_words())
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * len(words)]
    pairs = (
        _pair("tokenizer.ggml.model", _STRING, _string("llama")),
        _pair("tokenizer.ggml.tokens", _ARRAY, struct.pack("<IQ", _STRING, len(tokens)), *map(_string, tokens)),
        _pair(
            "tokenizer.ggml.scores", _ARRAY, struct.pack(f"<IQ{len(tokens)}f", _F32, len(tokens), *[0.0] * len(tokens))
        ),
        _pair("tokenizer.ggml.token_type", _ARRAY, struct.pack(f"<IQ{len(kinds)}i", _I32, len(kinds), *kinds)),
        _number("tokenizer.ggml.bos_token_id", 1),
        _number("tokenizer.ggml.eos_token_id", 2),
    )
    return Tokenizer(pairs, len(tokens))


def _plain_words() -> Iterable[str]:
    letters = string.ascii_lowercase
    yield from string.printable
    for length in (2, 3):
        yield from map("".join, itertools.product(letters, repeat=length))
    yield from (str(number) for number in range(1000))
    yield from (blank * length for blank in (" ", "\n", "\t", "▁") for length in range(1, 33))
    yield from map("".join, itertools.product('"{}[],:', repeat=3))
    chosen = random.Random(1)  # noqa: S311 - the same words each time
    for _ in range(_RANDOM_WORDS):
        word = "".join(chosen.choices(letters, k=chosen.randint(4, 16)))
        yield chosen.choice((word, "▁" + word, word.capitalize(), '"' + word))
        # What makes matching slow is a token that fits as far as its last character.
        yield word[:10] + chosen.choice("XYZ._-:(é1")


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _pair(name: str, kind: int, *value: bytes) -> bytes:
    return b"".join((_string(name), struct.pack("<I", kind), *value))


def _number(name: str, value: int) -> bytes:
    return _pair(name, _U32, struct.pack("<I", value))


def _write(path: Path, tokenizer: Tokenizer) -> None:
    """Write the file. Its tensors are a hole, which reads as zeros."""
    pairs = (
        _pair("general.architecture", _STRING, _string("llama")),
        _number("llama.block_count", 1),
        _number("llama.context_length", CONTEXT),
        _number("llama.embedding_length", _WIDTH),
        _number("llama.feed_forward_length", _WIDTH),
        _number("llama.attention.head_count", 1),
        _number("llama.vocab_size", tokenizer.tokens),
        _pair("llama.attention.layer_norm_rms_epsilon", _F32, struct.pack("<f", 1e-5)),
        *tokenizer.pairs,
    )
    tensors, size = _tensors(tokenizer.tokens)
    head = MAGIC + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    head += bytes(-len(head) % DEFAULT_ALIGNMENT)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)


def _tensors(tokens: int) -> tuple[list[bytes], int]:
    """Return the descriptions of the tensors, and their size together in bytes."""
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    layers = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: list[tuple[str, tuple[int, ...], int]] = [("token_embd", (_WIDTH, tokens), _TENSOR_F16)]
    shapes += [(name, (_WIDTH,), _TENSOR_F32) for name in norms]
    shapes += [(f"blk.0.{name}", (_WIDTH, _WIDTH), _TENSOR_F16) for name in layers]
    found, offset = [], 0
    for name, dimensions, kind in shapes:
        sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        found.append(_string(f"{name}.weight") + sizes + struct.pack("<IQ", kind, offset))
        size = math.prod(dimensions) * (4 if kind == _TENSOR_F32 else 2)
        offset += -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    return found, offset
