"""OpenAI's deprecated ``functions`` and ``function_call``, as the tools that took their place.

Only the newer fields mean anything to the model server; the answer goes back in the older form
(``inference.reshaping.functions``). The messages of such a client call and answer functions in that form too.
"""

from __future__ import annotations

from typing import Any


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
