"""How a model makes one vector, or one score, of the tokens of a text: what its file says, and what we ask for.

``{architecture}.pooling_type`` is described in GGUF's specification (ggml, docs/gguf.md) and numbered as llama.cpp's
``enum llama_pooling_type`` (include/llama.h). ``cls.output`` is the classification head of a reranker
(``LLM_TENSOR_CLS_OUT``, src/llama-arch.cpp); not every converter says ``rank`` beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mistral_api.supervisor.gguf import GgufError, Header, read_header

NONE, RANK = 0, 4
_HEAD = "cls.output.weight"
_YES = ("1", "true", "on", "enabled")


@dataclass(frozen=True, slots=True)
class Pooling:
    """``flags``: what llama-server is told; ``ranks``: whether it gives a score, None where nobody knows; ``context``:
    the model's own."""

    flags: tuple[str, ...]
    ranks: bool | None
    context: int | None = None


def ranking_requested(environment: Mapping[str, str]) -> bool:
    """Whether llama.cpp's own variables make a reranker of whatever is served."""
    asked = environment.get("LLAMA_ARG_RERANKING", "").lower() in _YES
    return asked or environment.get("LLAMA_ARG_POOLING") == "rank"


def pooling_of(path: Path, environment: Mapping[str, str]) -> Pooling:
    """How the model in this file pools: llama.cpp's variables first, then the file, and the mean where both are silent.

    A file that cannot be read is left to ``require_model``, which says why.
    """
    try:
        header = read_header(path)
    except (OSError, GgufError):
        return Pooling((), ranking_requested(environment) or None)
    architecture = header.metadata.get("general.architecture")
    context = header.metadata.get(f"{architecture}.context_length")
    window = context if isinstance(context, int) else None
    if "LLAMA_ARG_POOLING" in environment or ranking_requested(environment):
        return Pooling((), ranking_requested(environment), window)
    return _of_header(header, header.metadata.get(f"{architecture}.pooling_type"), window)


def _of_header(header: Header, kind: object, window: int | None) -> Pooling:
    if kind == RANK or _HEAD in header.tensors:
        return Pooling(("--pooling", "rank"), True, window)
    # A chat model names none, and a vector for each token is no embedding of a text.
    return Pooling(("--pooling", "mean") if kind in (None, NONE) else (), False, window)
