"""Chats that ask for no tokens: the model reads the prompt, so that a later request finds it read, and says nothing.

In Anthropic's API ``max_tokens: 0`` means just that (https://platform.claude.com/docs/en/api/messages). llama.cpp
generates a token all the same.
"""

from __future__ import annotations

from mistral_api.generation.stages import ChunkStage
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.payload_types.completions import Chunk, ChunkChoice, Delta


def only_warms(request: ChatPayload) -> bool:
    """Return whether a chat asks for no tokens."""
    return "n_predict" not in request and request.get("max_completion_tokens", request.get("max_tokens")) == 0


class PromptWarmingStage(ChunkStage):
    """Leaves out what was generated, and its tokens; the answer ends with ``length``."""

    def apply(self, chunk: Chunk) -> list[Chunk]:
        usage = chunk.get("usage")
        if usage is not None:
            chunk["usage"] = usage | {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        for choice in chunk.get("choices") or []:
            _silence(choice)
        return [chunk]


def _silence(choice: ChunkChoice) -> None:
    role = (choice.get("delta") or {}).get("role")
    delta: Delta = {} if role is None else {"role": role, "content": ""}
    choice["delta"] = delta
    choice.pop("logprobs", None)
    if choice.get("finish_reason") is not None:
        choice["finish_reason"] = "length"
