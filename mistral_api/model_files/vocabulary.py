"""How much text one token of a model stands for at most, by its GGUF file (GGUF's specification, ggml, docs/gguf.md).

The file has the text of every token, added ones too. It is never shorter than what the token stands for: tokenizers of
the kind ``gpt2`` write a byte as a character of one or two bytes, and those of the kind ``llama`` write a space as
three. So no text has fewer tokens than its bytes divided by those of the longest token.

That does not hold for the kinds ``bert`` and ``t5``, which drop white space, and read an unknown word as one token,
whatever its length (llama.cpp, src/llama-vocab.cpp).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from mistral_api.model_files.gguf import GgufError, read_header

_KIND = "tokenizer.ggml.model"
_KEEP_ALL_TEXT = ("gpt2", "llama", "rwkv", "plamo2", "gemma4")
# For what is not known: more than the longest tokens in use (runs of spaces of up to 512 bytes).
UNKNOWN_LONGEST = 1024


def longest_token(path: Path | None) -> int:
    """Return how many bytes of text one token of a model stands for at most.

    It is a generous guess for a file that is not known or cannot be read, and for tokenizers that drop text.
    """
    try:
        return UNKNOWN_LONGEST if path is None else _longest_token(path, path.stat().st_mtime_ns)
    except (OSError, GgufError):
        return UNKNOWN_LONGEST


@lru_cache(maxsize=4)
def _longest_token(path: Path, _version: int) -> int:
    header = read_header(path)
    known = header.longest_token and header.metadata.get(_KIND) in _KEEP_ALL_TEXT
    return header.longest_token if known else UNKNOWN_LONGEST
