"""Legacy completions in OpenAI's form.

llama.cpp gives chat ids, the log probabilities of chats, no ``echo``, and a token where none was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.inference.reshaping.logprobs import legacy_logprobs, visible_tokens
from mistral_api.schemas.payload_types import Chunk


class LegacyCompletionStage:
    """The stage that makes OpenAI's ``text_completion`` of llama.cpp's."""

    def __init__(
        self, *, logprobs: int | None = None, silent: bool = False, echo: Sequence[str] = (), per_prompt: int = 1
    ) -> None:
        """``silent``: no tokens were asked for; ``echo``: the prompts, to stand before each of their
        ``per_prompt`` choices; ``logprobs``: how many alternatives, None for no log probabilities."""
        self._logprobs = logprobs
        self._silent = silent
        self._echo = echo
        self._per_prompt = per_prompt
        self._lengths: dict[int, int] = {}

    def answer_begins(self) -> None:
        """Choices are numbered through before they come here."""

    def chunk(self, chunk: Chunk) -> list[Chunk]:
        chunk["id"] = "cmpl-" + str(chunk.get("id")).removeprefix("chatcmpl-")
        if self._silent and "usage" in chunk:
            tokens = chunk["usage"]["prompt_tokens"]
            chunk["usage"] |= {"completion_tokens": 0, "total_tokens": tokens}
        for choice in chunk["choices"]:
            self._mend(choice)
        return [chunk]

    def end(self) -> list[Chunk]:
        return []

    def _mend(self, choice: dict[str, Any]) -> None:
        entries = visible_tokens(choice)
        index, text = choice["index"], "" if self._silent else choice.get("text") or ""
        prompt = self._echo[index // self._per_prompt] if self._echo and index not in self._lengths else ""
        offset = self._lengths.get(index, 0) + len(prompt)
        self._lengths[index] = offset + len(text)
        choice["text"] = prompt + text
        wanted = self._logprobs is not None and entries and not self._silent
        choice["logprobs"] = legacy_logprobs(entries, self._logprobs or 0, offset) if wanted else None
