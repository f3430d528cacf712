"""Several choices, from one answer of the model server or from several: numbered through, with one usage.

llama.cpp gives no more choices at once than it has slots, and reports the usage of each choice apart, with each the
prompt that they share (tools/server/README.md, ``n``; seen on its server).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.schemas.payload_types import Chunk

_HEAD = ("id", "object", "created", "model", "system_fingerprint")


class ChoiceIndexStage:
    """The stage that numbers the choices and sums their usage."""

    def __init__(self, counts: Sequence[int] = (1,)) -> None:
        """``counts``: how many choices for each prompt every answer of the model server brings."""
        self._counts = counts
        self._answer = -1
        self._head: Chunk = {}
        self._prompts: dict[int, tuple[int, int]] = {}
        self._completion = 0
        self._timings: Any = None

    def answer_begins(self) -> None:
        self._answer += 1

    def chunk(self, chunk: Chunk) -> list[Chunk]:
        if not self._head:
            self._head = {name: chunk[name] for name in _HEAD if name in chunk}
        chunk["id"] = self._head.get("id")
        usage, choices = chunk.pop("usage", None), chunk.get("choices") or []
        for choice in choices:
            choice["index"] = self._renumbered(int(choice.get("index") or 0))
        if isinstance(usage, dict):
            self._add(usage, choices[0]["index"] // sum(self._counts) if choices else 0)
            self._timings = chunk.get("timings", self._timings)
        return [chunk] if choices else []

    def _renumbered(self, index: int) -> int:
        """All choices of the first prompt, then all of the next one (OpenAI's ``CreateCompletionRequest``)."""
        prompt, which = divmod(index, self._counts[self._answer])
        return prompt * sum(self._counts) + sum(self._counts[: self._answer]) + which

    def _add(self, usage: dict[str, Any], prompt: int) -> None:
        cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        # The first to read a prompt tells what it cost: the others find it in the cache.
        self._prompts.setdefault(prompt, (int(usage.get("prompt_tokens") or 0), cached))
        self._completion += int(usage.get("completion_tokens") or 0)

    def end(self) -> list[Chunk]:
        prompt = sum(tokens for tokens, _ in self._prompts.values())
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion,
            "total_tokens": prompt + self._completion,
            "prompt_tokens_details": {"cached_tokens": sum(cached for _, cached in self._prompts.values())},
        }
        total = self._head | {"choices": [], "usage": usage}
        return [total if self._timings is None else total | {"timings": self._timings}]
