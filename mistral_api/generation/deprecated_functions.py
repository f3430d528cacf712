"""OpenAI's deprecated ``functions`` and ``function_call``: to the tools that took their place, and back.

Only the newer fields mean anything to the model server. The messages of such a client call and answer functions in the
older form too, and the response goes back in it: one ``function_call`` a message.
"""

from __future__ import annotations

from mistral_api.generation.stages import ChunkStage
from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import ChatMessage, ChatPayload, ToolChoice
from mistral_api.payload_types.completions import Chunk


def functions_to_tools(payload: ChatPayload) -> ChatPayload:
    """Return the request with tools in place of functions, if it has any."""
    if "functions" not in payload and "function_call" not in payload:
        return payload
    functions, call = payload.get("functions"), payload.get("function_call")
    others = omit(payload, ("functions", "function_call"))
    if not functions:
        return others
    choice: str | ToolChoice = call if isinstance(call, str) else "auto"
    if isinstance(call, dict):
        choice = {"type": "function", "function": {"name": call["name"]}}
    return others | {
        "messages": _with_tool_calls(payload["messages"]),
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": choice,
        "parallel_tool_calls": False,
    }


def _with_tool_calls(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Give calls and their results ids: a result belongs to the last call before it."""
    changed: list[ChatMessage] = []
    call_id = ""
    for number, message in enumerate(messages):
        copy, call = omit(message, ("function_call",)), message.get("function_call")
        if call:
            call_id = f"call{number:05d}"
            copy["tool_calls"] = [{"id": call_id, "type": "function", "function": call}]
        elif message["role"] == "function":
            copy |= {"role": "tool", "tool_call_id": call_id}
        changed.append(copy)
    return changed


class FunctionCallStage(ChunkStage):
    """Makes a ``function_call`` of the first tool call; such a client knows of no others."""

    def apply(self, chunk: Chunk) -> list[Chunk]:
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            for call in delta.pop("tool_calls", None) or []:
                if call.get("index", 0) == 0:
                    delta["function_call"] = call["function"]
            if choice.get("finish_reason") == "tool_calls":
                choice["finish_reason"] = "function_call"
        return [chunk]
