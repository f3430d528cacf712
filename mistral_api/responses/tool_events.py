"""What the stream of a response says of the calls of tools, kind by kind (OpenAI's ``ResponseStreamEvent``).

The arguments of a function and the input of a custom tool come piece by piece. The commands of a shell are known when
its call is complete, and come then. The calls of other tools have no events but those of every item.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from mistral_api.conversations.tool_items import CUSTOM_CALL, FUNCTION_CALL
from mistral_api.payload_types.completions import ToolCallDelta
from mistral_api.payload_types.responses import CallItem, OutputItem, ResponseEvent

_DELTAS = {
    FUNCTION_CALL: "response.function_call_arguments.delta",
    CUSTOM_CALL: "response.custom_tool_call_input.delta",
}


def announced_call(item: CallItem) -> OutputItem:
    """Return a call as it is announced: with nothing to do in it yet."""
    match item["type"]:
        case "function_call":
            return item | {"arguments": ""}
        case "custom_tool_call":
            return item | {"input": ""}
        case "shell_call":
            return item | {"action": item["action"] | {"commands": []}}
        case "local_shell_call":
            return item | {"action": item["action"] | {"command": []}}
        case "tool_search_call":
            return item | {"arguments": {}}
        case _:
            # The schema demands a diff of all operations but one.
            return item | {"operation": {"type": "update_file", "path": "", "diff": ""}}


def call_delta(kind: str, delta: ToolCallDelta) -> ResponseEvent | None:
    """Return the event of a piece of a call, None where there is nothing to say. ``kind``: the type of its item."""
    text = (delta.get("function") or {}).get("arguments") or (delta.get("custom") or {}).get("input")
    return {"type": _DELTAS[kind], "delta": text} if text and kind in _DELTAS else None


def call_done(item: OutputItem) -> Iterator[ResponseEvent]:
    """Yield the events of a complete item that go before its end, if it is the call of a tool."""
    if item["type"] == "function_call":
        done: ResponseEvent = {"type": "response.function_call_arguments.done"}
        yield done | {"name": item["name"], "arguments": item["arguments"]}
    elif item["type"] == "custom_tool_call":
        yield {"type": "response.custom_tool_call_input.done", "input": item["input"]}
    elif item["type"] == "shell_call":
        for index, command in enumerate(item["action"]["commands"]):
            about = cast("ResponseEvent", {"command_index": index})
            yield about | {"type": "response.shell_call_command.added", "command": ""}
            yield about | {"type": "response.shell_call_command.delta", "delta": command}
            yield about | {"type": "response.shell_call_command.done", "command": command}
