"""Legacy completions: what llama.cpp does not give in OpenAI's form for them is changed chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

from mistral_api.generation.logprobs import legacy_logprobs, visible_tokens
from mistral_api.generation.stages import ChunkStage
from mistral_api.payload_types.completions import Chunk, ChunkChoice


class LegacyCompletionStage(ChunkStage):
    """Makes OpenAI's ``text_completion`` of llama.cpp's.

    llama.cpp gives ids of chats, log probabilities in the form of chats, no ``echo``, and a token where none was asked
    for.
    """

    def __init__(
        self, *, logprobs: int | None = None, silent: bool = False, echo: Sequence[str] = (), per_prompt: int = 1
    ) -> None:
        """``silent``: no tokens were asked for; ``echo``: the prompts, each to stand before its ``per_prompt`` choices;
        ``logprobs``: how many alternatives, None for no log probabilities."""
        self._logprobs = logprobs
        self._silent = silent
        self._echo = echo
        self._per_prompt = per_prompt
        self._lengths: dict[int, int] = {}

    def apply(self, chunk: Chunk) -> list[Chunk]:
        chunk["id"] = "cmpl-" + str(chunk.get("id")).removeprefix("chatcmpl-")
        usage = chunk.get("usage")
        if self._silent and usage is not None:
            chunk["usage"] = usage | {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        for choice in chunk["choices"]:
            self._complete(choice)
        return [chunk]

    def _complete(self, choice: ChunkChoice) -> None:
        entries = visible_tokens(choice)
        index, text = choice["index"], "" if self._silent else choice.get("text") or ""
        prompt = self._echo[index // self._per_prompt] if self._echo and index not in self._lengths else ""
        offset = self._lengths.get(index, 0) + len(prompt)
        self._lengths[index] = offset + len(text)
        choice["text"] = prompt + text
        wanted = self._logprobs is not None and entries and not self._silent
        choice["logprobs"] = legacy_logprobs(entries, self._logprobs or 0, offset) if wanted else None
