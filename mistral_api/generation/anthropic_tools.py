"""The tools of a Messages request as functions of a chat completion request.

The model is told of a tool with ``defer_loading`` only when a message refers to it: a result of Claude Code's search
among its tools (``tool_reference``), or a system message (``tool_addition``). Where Anthropic's servers should search,
nobody does here, so the model is told of all tools.

Tools that Anthropic has defined and the client runs become functions with the parameters that Anthropic publishes:
docs.anthropic.com, Agents and tools, Tool use (bash tool, text editor tool, computer use tool), and for the memory tool
the ``anthropic`` package's ``BetaMemoryTool20250818*Command``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mistral_api.generation.ignored_tools import ignored_types
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.anthropic import AnthropicTool, MessagesPayload, SystemBlock, UserBlock
from mistral_api.payload_types.chat import FunctionDefinition, Tool
from mistral_api.wire.anthropic_tools import TOOL_SEARCH, client_tool, is_hosted

_TEXT: JsonObject = {"type": "string"}
_NUMBER: JsonObject = {"type": "integer"}
_POINT: JsonObject = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
_EDITS = ("view", "create", "str_replace", "insert")
_MOUSE = ("left_click", "right_click", "middle_click", "double_click", "triple_click", "left_click_drag", "mouse_move")
_ACTIONS = (
    *("key", "type", "screenshot", "cursor_position", "wait", "scroll", "hold_key", "left_mouse_down", "left_mouse_up"),
    *_MOUSE,
    "zoom",
)


def _parameters(*needed: str, **properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "required": list(needed)}


def _words(*words: str) -> JsonObject:
    return {"type": "string", "enum": list(words)}


_CHANGED_TEXT = {
    "file_text": _TEXT,
    "old_str": _TEXT,
    "new_str": _TEXT,
    "insert_line": _NUMBER,
    "insert_text": _TEXT,
    "view_range": _POINT,
}
_CLIENT_TOOLS: Mapping[str, tuple[str, JsonObject]] = {
    "bash": (
        "Run a command in a bash session that stays open. With 'restart' the session begins anew.",
        _parameters(command=_TEXT, restart={"type": "boolean"}),
    ),
    "text_editor": (
        "View and edit files: 'view' a file or folder, 'create' a file, replace a unique text, insert after a line.",
        _parameters("command", "path", command=_words(*_EDITS), path=_TEXT, **_CHANGED_TEXT),
    ),
    "memory": (
        "Read and write files below /memories, which outlast the conversation.",
        _parameters(
            "command",
            command=_words(*_EDITS, "delete", "rename"),
            path=_TEXT,
            old_path=_TEXT,
            new_path=_TEXT,
            **_CHANGED_TEXT,
        ),
    ),
    "computer": (
        "Use a computer with screen, mouse and keyboard. Take a screenshot first.",
        _parameters(
            "action",
            action=_words(*_ACTIONS),
            coordinate=_POINT,
            start_coordinate=_POINT,
            text=_TEXT,
            scroll_direction=_words("up", "down", "left", "right"),
            scroll_amount=_NUMBER,
            duration={"type": "number"},
            region={"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4},
        ),
    ),
}


def ignored_tools(request: MessagesPayload) -> tuple[str, ...]:
    """Return the types of what a valid request offers and only Anthropic's servers could run."""
    servers = ["mcp_servers"] if request.get("mcp_servers") else []
    types = [str(tool.get("type")) for tool in request.get("tools") or [] if is_hosted(tool)]
    return ignored_types("Anthropic", types + servers)


def chat_tools(request: MessagesPayload) -> list[Tool]:
    """Return the functions that the model is told of, for a valid request."""
    tools = request.get("tools") or []
    searched = any((tool.get("type") or "").startswith(TOOL_SEARCH) for tool in tools)
    changes = dict(_changes(request)) if any(tool.get("defer_loading") for tool in tools) else {}
    return [
        _function(tool)
        for tool in tools
        if not is_hosted(tool) and changes.get(tool["name"], searched or not tool.get("defer_loading"))
    ]


def _changes(request: MessagesPayload) -> Iterator[tuple[str, bool]]:
    """Yield the names of tools that are brought in, or taken away, in the order of the messages."""
    for message in request["messages"]:
        if message["role"] != "assistant" and not isinstance(message["content"], str):
            for block in message["content"]:
                yield from _changes_in(block)
    choice = request.get("tool_choice") or {"type": "auto"}
    if choice["type"] == "tool":
        yield choice["name"], True


def _changes_in(block: UserBlock | SystemBlock) -> Iterator[tuple[str, bool]]:
    if block["type"] == "tool_result":
        content = block.get("content") or ""
        if not isinstance(content, str):
            yield from ((part["tool_name"], True) for part in content if part["type"] == "tool_reference")
    elif block["type"] == "tool_addition" or block["type"] == "tool_removal":
        yield block["tool"].get("name", ""), block["type"] == "tool_addition"


def _function(tool: AnthropicTool) -> Tool:
    kind = client_tool(tool)
    text, parameters = _CLIENT_TOOLS[kind] if kind else (tool.get("description"), tool["input_schema"])
    function: FunctionDefinition = {"name": tool["name"], "parameters": parameters}
    if text is not None:
        function["description"] = text
    strict = tool.get("strict")
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}
