"""OpenAI's `functions`, to tools and back.

OpenAI's deprecated ``functions`` and ``function_call``, as the tools that took their place.

Only the newer fields mean anything to the model server; the answer goes back in the older form
(``inference.reshaping.functions``). The messages of such a client call and answer functions in that form too.

Tool calls in the older form of OpenAI's deprecated ``functions``: one ``function_call`` a message.
"""

from __future__ import annotations

from typing import Any

from mistral_api.wire.payload_types import Chunk


def functions_to_tools(payload: dict[str, Any]) -> dict[str, Any]:
    """The request with tools for functions, if it has any."""
    if "functions" not in payload and "function_call" not in payload:
        return payload
    functions, choice = payload.get("functions"), payload.get("function_call")
    kept = {name: value for name, value in payload.items() if name not in ("functions", "function_call")}
    if not functions:
        return kept
    if isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice["name"]}}
    return kept | {
        "messages": _with_tool_calls(payload["messages"]),
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": choice or "auto",
        "parallel_tool_calls": False,
    }


def _with_tool_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls and their results get ids: a result is that of the last call before it."""
    changed, call_id = [], ""
    for number, message in enumerate(messages):
        kept = {name: value for name, value in message.items() if name != "function_call"}
        if message.get("function_call"):
            call_id = f"call{number:05d}"
            kept["tool_calls"] = [{"id": call_id, "type": "function", "function": message["function_call"]}]
        elif message["role"] == "function":
            kept |= {"role": "tool", "tool_call_id": call_id}
        changed.append(kept)
    return changed


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
