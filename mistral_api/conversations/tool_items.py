"""The calls of tools, and their outputs, as items of the Responses API and as they stand in chat messages.

A chat knows functions and custom tools. A call of another tool is stored as that of a function, whose arguments say
what the item says, with the item's type beside it (``ToolCall.item``). Its output is a message of the role ``tool``,
with the item's type beside it too. So the model reads both in a form that it knows, and clients get their items back.

The forms are those of openai/openai-python, src/openai/types/responses (3.57), and of openai/codex, codex-rs/protocol/
src/models.rs ``ResponseItem``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson

from mistral_api.payload_types import JsonObject, omit, pick, without_nulls
from mistral_api.payload_types.chat import ChatMessage, CustomCall, ToolCall
from mistral_api.payload_types.responses import (
    CallItem,
    CustomCallItem,
    FunctionCallItem,
    LocalShellAction,
    PatchOperation,
    ShellAction,
    ToolOutputItem,
)

FUNCTION_CALL, CUSTOM_CALL = "function_call", "custom_tool_call"
SHELL_CALL, LOCAL_SHELL_CALL = "shell_call", "local_shell_call"
APPLY_PATCH_CALL, TOOL_SEARCH_CALL = "apply_patch_call", "tool_search_call"
FUNCTION_OUTPUT, CUSTOM_OUTPUT = "function_call_output", "custom_tool_call_output"
SHELL_OUTPUT, LOCAL_SHELL_OUTPUT = "shell_call_output", "local_shell_call_output"
APPLY_PATCH_OUTPUT, TOOL_SEARCH_OUTPUT = "apply_patch_call_output", "tool_search_output"
# The one argument of the function that a custom tool becomes.
INPUT = "input"
# How the arguments with it begin, as JSON without white space.
INPUT_OPENING = f'{{"{INPUT}":"'
# The tools whose name is their type, by the type of their calls.
TOOL_OF_CALL = {
    SHELL_CALL: "shell",
    LOCAL_SHELL_CALL: "local_shell",
    APPLY_PATCH_CALL: "apply_patch",
    TOOL_SEARCH_CALL: "tool_search",
}
CALL_TYPES = (FUNCTION_CALL, CUSTOM_CALL, *TOOL_OF_CALL)
OUTPUT_TYPES = (
    FUNCTION_OUTPUT,
    CUSTOM_OUTPUT,
    SHELL_OUTPUT,
    LOCAL_SHELL_OUTPUT,
    APPLY_PATCH_OUTPUT,
    TOOL_SEARCH_OUTPUT,
)
_MESSAGE_TYPES = (*OUTPUT_TYPES, "additional_tools", "agent_message")
# Outputs that are no text: they are stored as the JSON of these fields.
_OUTPUT_FIELDS = {
    SHELL_OUTPUT: ("output", "max_output_length"),
    APPLY_PATCH_OUTPUT: ("status", "output"),
    TOOL_SEARCH_OUTPUT: ("status", "execution", "tools"),
}


def call_type(call: ToolCall) -> str:
    """Return the type of the item of a stored call."""
    if call.get("type") == "custom":
        return CUSTOM_CALL
    item = call.get("item")
    # Clients of chat completions may send fields of any name with their calls.
    return item if isinstance(item, str) and item in TOOL_OF_CALL else FUNCTION_CALL


def call_text(call: ToolCall) -> str:
    """Return what a stored call says: the arguments of its function, or its input."""
    said = _said(call)
    return said.get("input" if call_type(call) == CUSTOM_CALL else "arguments") or ""


def call_name(call: ToolCall) -> str:
    """Return the name of the tool that a stored call is of."""
    return _said(call).get("name") or ""


def _said(call: ToolCall) -> dict[str, str]:
    """Return what holds name and text of a stored call; an imported one may have neither."""
    said: object = call.get("custom" if call_type(call) == CUSTOM_CALL else "function")
    return said if isinstance(said, dict) else {}


def as_function_call(call: ToolCall) -> ToolCall:
    """Return a stored call as that of a function, which is all that models know."""
    function = {"name": call_name(call), "arguments": call_text(call)}
    if call_type(call) == CUSTOM_CALL:
        function["arguments"] = orjson.dumps({INPUT: call_text(call)}).decode()
    plain = omit(call, ("custom", "namespace", "item"))
    return cast("ToolCall", plain | {"type": "function", "function": function})


def call_from_item(item: CallItem) -> ToolCall:
    """Return the stored form of the call that an item is; its id is not set."""
    if item["type"] == "function_call":
        call: ToolCall = {"type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}}
        return _in_namespace(call, item)
    if item["type"] == "custom_tool_call":
        return _in_namespace({"type": "custom", "custom": CustomCall(name=item["name"], input=item["input"])}, item)
    arguments = _ARGUMENTS[item["type"]](cast("JsonObject", item))
    function = {"name": TOOL_OF_CALL[item["type"]], "arguments": orjson.dumps(arguments).decode()}
    return cast("ToolCall", {"type": "function", "function": function, "item": item["type"]})


def _in_namespace(call: ToolCall, item: FunctionCallItem | CustomCallItem) -> ToolCall:
    namespace = item.get("namespace")
    return call | {"namespace": namespace} if namespace else call


def _shell_arguments(item: JsonObject) -> JsonObject:
    return without_nulls(item["action"])


def _local_shell_arguments(item: JsonObject) -> JsonObject:
    """An environment without variables is left out: the item must have one, and a model seldom gives any."""
    return {name: value for name, value in item["action"].items() if name != "type" and value not in (None, {})}


def _patch_arguments(item: JsonObject) -> JsonObject:
    return pick(item["operation"], ("type", "path", "diff"))


def _search_arguments(item: JsonObject) -> JsonObject:
    arguments: JsonObject = item["arguments"]
    return arguments


_ARGUMENTS: Mapping[str, Callable[[JsonObject], JsonObject]] = {
    SHELL_CALL: _shell_arguments,
    LOCAL_SHELL_CALL: _local_shell_arguments,
    APPLY_PATCH_CALL: _patch_arguments,
    TOOL_SEARCH_CALL: _search_arguments,
}


def call_item(item_id: str, call_id: str, call: ToolCall, status: str) -> CallItem:
    """Return a stored call as its item.

    What a model was cut off in, or has written wrongly, is no JSON: the item then asks for nothing, and is incomplete.
    """
    kind = call_type(call)
    head = {"id": item_id, "type": kind, "status": status, "call_id": call_id}
    namespace = {"namespace": str(call["namespace"])} if call.get("namespace") else {}
    if kind in (FUNCTION_CALL, CUSTOM_CALL):
        text = "input" if kind == CUSTOM_CALL else "arguments"
        return cast("CallItem", head | {"name": call_name(call), text: call_text(call)} | namespace)
    arguments = read_json_object(call_text(call))
    if arguments is None:
        head["status"] = "incomplete"
    return cast("CallItem", head | _CALL_FIELDS[kind](arguments or {}))


def is_json(text: str) -> bool:
    """Return whether a text is JSON."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def read_json_object(text: object) -> JsonObject | None:
    """Return the JSON object that a text is, None for any other."""
    try:
        value = orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def message_item_type(message: ChatMessage) -> str | None:
    """Return the type of the item that a stored message is, where it is neither a message nor a function's output."""
    item = message.get("item")
    return item if item in _MESSAGE_TYPES else None


def _shell_fields(arguments: JsonObject) -> JsonObject:
    action: ShellAction = {
        "commands": _strings(arguments.get("commands")),
        "timeout_ms": _integer(arguments.get("timeout_ms")),
        "max_output_length": _integer(arguments.get("max_output_length")),
    }
    return {"action": action, "environment": None}


def _local_shell_fields(arguments: JsonObject) -> JsonObject:
    variables = arguments.get("env")
    texts = {name: _text(arguments[name]) for name in ("working_directory", "user") if arguments.get(name) is not None}
    action: LocalShellAction = {
        "type": "exec",
        "command": _strings(arguments.get("command")),
        "env": {name: _text(value) for name, value in variables.items()} if isinstance(variables, dict) else {},
        "timeout_ms": _integer(arguments.get("timeout_ms")),
        "working_directory": texts.get("working_directory"),
        "user": texts.get("user"),
    }
    return {"action": action}


def _patch_fields(arguments: JsonObject) -> JsonObject:
    kind = _text(arguments.get("type", "update_file"))
    operation: PatchOperation = {"type": kind, "path": _text(arguments.get("path", ""))}
    return {"operation": operation if kind == "delete_file" else operation | {"diff": _text(arguments.get("diff", ""))}}


def _search_fields(arguments: JsonObject) -> JsonObject:
    return {"execution": "client", "arguments": arguments}


_CALL_FIELDS: Mapping[str, Callable[[JsonObject], JsonObject]] = {
    SHELL_CALL: _shell_fields,
    LOCAL_SHELL_CALL: _local_shell_fields,
    APPLY_PATCH_CALL: _patch_fields,
    TOOL_SEARCH_CALL: _search_fields,
}


def _strings(value: Any) -> list[str]:
    """Return the strings of an array; a model may have written a single string instead."""
    return [_text(each) for each in value] if isinstance(value, list) else [value] if isinstance(value, str) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def output_content(item: ToolOutputItem) -> str:
    """Return the stored content of an output that is neither text nor parts."""
    return orjson.dumps(pick(cast("JsonObject", item), _OUTPUT_FIELDS[item["type"]])).decode()


def has_own_content(kind: str) -> bool:
    """Return whether outputs of this type are stored as :func:`output_content` writes them."""
    return kind in _OUTPUT_FIELDS


def output_fields(message: ChatMessage) -> JsonObject | None:
    """Return the fields of a stored output that :func:`output_content` has written, None for any other message."""
    kind = message_item_type(message)
    return read_json_object(message.get("content")) if kind in _OUTPUT_FIELDS else None
