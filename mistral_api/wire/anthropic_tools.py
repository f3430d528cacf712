"""Tools of a Messages request, and the choice among them.

There are three kinds (``ToolUnionParam`` and ``BetaToolUnionParam`` of the ``anthropic`` package):

- ``custom`` tools, with a schema of their own, which the client runs;
- tools that Anthropic has defined and the client runs all the same: ``bash_20250124``, ``memory_20250818`` and so on;
- *hosted* tools, which only Anthropic's servers could run: ``web_search_20250305``, ``mcp_toolset`` and so on. They are
  left out where the model may do without a tool.
"""

from __future__ import annotations

import re

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.anthropic import AnthropicTool, MessagesPayload
from mistral_api.wire.constraints import JSON_SCHEMA
from mistral_api.wire.container_shapes import Array, Object, TaggedUnion, nullable, required
from mistral_api.wire.field_errors import refuse, refuse_type
from mistral_api.wire.shapes import Boolean, Constant, Shape, Text, any_of
from mistral_api.wire.tools import MOST_TOOLS, name_of

# The types of the tools that the client runs; a date follows.
CLIENT_TOOL_KINDS = ("bash", "text_editor", "memory", "computer")
TOOL_SEARCH = "tool_search_tool_"
_CLIENT_TYPE = re.compile(rf"({'|'.join(CLIENT_TOOL_KINDS)})_[0-9]{{8}}")
# At most 64 characters: the response names them in a header.
_HOSTED_TYPE = re.compile(r"[a-z_]{1,55}_[0-9]{8}|mcp_toolset|tool_search_tool_(?:bm25|regex)")

_NAME = name_of("a tool")
_COMMON = nullable(strict=Boolean(), defer_loading=Boolean())
_CUSTOM = Object(
    nullable(type=Constant("custom")),
    required(name=_NAME, input_schema=JSON_SCHEMA),
    nullable(description=Text()),
    _COMMON,
)
_CLIENT = Object(required(type=Text(pattern=_CLIENT_TYPE)), required(name=_NAME), _COMMON)
_HOSTED = Object(required(type=Text(pattern=_HOSTED_TYPE)))


def client_tool(tool: AnthropicTool) -> str | None:
    """Return which of ``CLIENT_TOOL_KINDS`` a valid tool is, None for tools of other kinds."""
    matched = _CLIENT_TYPE.fullmatch(tool.get("type") or "")
    return matched[1] if matched else None


def is_hosted(tool: AnthropicTool) -> bool:
    """Return whether only Anthropic's servers could run a valid tool."""
    return (tool.get("type") or "custom") != "custom" and client_tool(tool) is None


def _check_tool(tool: JsonObject) -> None:
    if not isinstance(tool, dict):
        refuse_type("an object", tool)
    kind = tool.get("type")
    if not isinstance(kind, str) or kind == "custom":
        _CUSTOM.check(tool)
    elif _CLIENT_TYPE.fullmatch(kind):
        _CLIENT.check(tool)
    elif not _HOSTED_TYPE.fullmatch(kind):
        text = "Unsupported value for '{param}': this server knows no tools of this type, 'custom' is the usual one."
        refuse("not_supported", text, ".type")


TOOL = Shape(_check_tool, any_of([_CUSTOM.json_schema, _CLIENT.json_schema, _HOSTED.json_schema]), dict)
TOOLS = Array(TOOL, 0, MOST_TOOLS)

_PARALLEL = nullable(disable_parallel_tool_use=Boolean())
_ANY_TOOL = Object(_PARALLEL)
TOOL_CHOICE = TaggedUnion(
    "type",
    {"auto": _ANY_TOOL, "any": _ANY_TOOL, "tool": Object(required(name=_NAME), _PARALLEL), "none": _ANY_TOOL},
)

# ``tool_addition`` and ``tool_removal``: which tools system messages bring in and take away. Tools of MCP servers are
# hosted. ``tool_definition``, a whole tool within a message, is not known here.
_CHANGED_TOOL = TaggedUnion(
    "type",
    {"tool_reference": Object(required(name=_NAME)), "mcp_tool_reference": Object(), "mcp_toolset_reference": Object()},
)
TOOL_CHANGES = dict.fromkeys(("tool_addition", "tool_removal"), Object(required(tool=_CHANGED_TOOL)))


def check_choice(request: MessagesPayload) -> None:
    """Refuse a choice that no tool can satisfy: a tool that is not there, or one that only Anthropic could run."""
    choice, tools = request.get("tool_choice"), request.get("tools") or []
    if choice is None or choice["type"] not in ("any", "tool"):
        return
    if choice["type"] == "any" and not tools:
        refuse("invalid_value", "'{param}' of type 'any' is only allowed with 'tools'.", field="tool_choice")
    wanted = [
        index for index, tool in enumerate(tools) if choice["type"] == "any" or tool.get("name") == choice["name"]
    ]
    if not wanted:
        refuse("invalid_value", "'{param}' names a tool that is not in 'tools'.", field="tool_choice")
    _refuse_hosted(tools, wanted)


def _refuse_hosted(tools: list[AnthropicTool], wanted: list[int]) -> None:
    """Refuse a call of tools that are all hosted."""
    if all(is_hosted(tools[index]) for index in wanted):
        text = "'{param}' is not supported: only Anthropic's servers could run this tool, and the request demands it."
        refuse("not_supported", text, f"[{wanted[0]}].type", field="tools")
