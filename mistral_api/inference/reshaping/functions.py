"""Tool calls in the older form of OpenAI's deprecated ``functions``: one ``function_call`` a message."""

from __future__ import annotations

from mistral_api.schemas.payload_types import Chunk


class FunctionCallStage:
    """The stage that makes a ``function_call`` of the first tool call; such a client knows of no others."""

    def answer_begins(self) -> None:
        """Every chunk stands for itself."""

    def chunk(self, chunk: Chunk) -> list[Chunk]:
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            for call in delta.pop("tool_calls", None) or []:
                if call.get("index", 0) == 0:
                    delta["function_call"] = call["function"]
            if choice.get("finish_reason") == "tool_calls":
                choice["finish_reason"] = "function_call"
        return [chunk]

    def end(self) -> list[Chunk]:
        return []
