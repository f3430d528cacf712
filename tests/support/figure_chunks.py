"""Chunks with token counts, as llama.cpp sends them."""

from __future__ import annotations

from typing import Any

Counts = tuple[int | None, int | None, int | None]


def progress(processed: int, cache: int = 0, total: int = 500, index: int = 0) -> dict[str, Any]:
    """Return a report on a prompt."""
    report = {"total": total, "cache": cache, "processed": processed, "time_ms": 1}
    return {"choices": [{"index": index, "delta": {"role": "assistant", "content": None}}], "prompt_progress": report}


def piece(text: str, index: int = 0, **figures: Any) -> dict[str, Any]:
    """Return a chunk with text, and with these figures."""
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}], **figures}


def finish(index: int = 0) -> dict[str, Any]:
    """Return the chunk that ends a choice."""
    return {"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}


def timings(predicted: int, prompt: int = 40, cached: int = 10) -> dict[str, Any]:
    """Return the measurements of a chunk: ``prompt`` tokens were not in the cache."""
    return {"timings": {"cache_n": cached, "prompt_n": prompt, "predicted_n": predicted, "predicted_ms": 1.5}}


def usage(prompt: Any, completion: Any, cached: Any = 0) -> dict[str, Any]:
    """Return the usage of a chunk."""
    details = {"cached_tokens": cached}
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}}
