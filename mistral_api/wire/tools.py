"""Tools, the choice among them, and the format of the response (OpenAI's ChatCompletionTool and its kin)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, cast

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import NamedTool, Tool, ToolChoice
from mistral_api.payload_types.responses import ResponseToolChoice
from mistral_api.wire.constraints import JSON_SCHEMA, MOST_GRAMMAR_CHARACTERS
from mistral_api.wire.container_shapes import (
    Array,
    FieldGroup,
    Object,
    TaggedUnion,
    nullable,
    required,
    required_or_checked_as,
)
from mistral_api.wire.field_errors import quote_value, quote_words, refuse, refuse_missing
from mistral_api.wire.shapes import ANYTHING, AnyOf, Boolean, Shape, StringEnum, Text, check_at

MOST_TOOLS = 128
TOOL_CHOICES = ("none", "auto", "required")

# OpenAI takes 64 characters, Anthropic 128, and so does llama.cpp: tools of MCP servers have long names.
NAME_LENGTH = 128
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_LENGTH}}}")


def name_of(thing: str) -> Shape:
    """Return the shape of names of a thing, as in "a function"."""

    def check(name: str) -> None:
        if not _NAME.fullmatch(name):
            refuse("invalid_value", f"Invalid '{{param}}': {thing}'s name has letters, digits, '_' and '-' only.")

    return Text(1, NAME_LENGTH).refined(check).with_schema(Text(pattern=_NAME))


def _load_tool(tool: JsonObject) -> JsonObject:
    """A null description counts as absent."""
    kind, convert = tool["type"], _KINDS[tool["type"]].convert
    return {"type": kind, kind: tool[kind] if convert is None else convert(tool[kind])}


FUNCTION_NAME = name_of("a function")
FUNCTION_FIELDS = (
    required(name=FUNCTION_NAME),
    nullable(
        description=Text(),
        parameters=JSON_SCHEMA.with_keywords(description="A JSON schema of the arguments."),
        strict=Boolean(),
    ),
)
# A null description counts as absent.
_FUNCTION = Object(*FUNCTION_FIELDS, drop_nulls=True)
# The input of a custom tool is free text; a grammar in lark, or a regular expression, may narrow it down.
GRAMMAR_FIELDS = (required(syntax=StringEnum("lark", "regex"), definition=Text(1, MOST_GRAMMAR_CHARACTERS)),)
_CUSTOM_FORMAT = TaggedUnion("type", {"text": Object(), "grammar": Object(required(grammar=Object(*GRAMMAR_FIELDS)))})
_CUSTOM = Object(required(name=FUNCTION_NAME), nullable(description=Text(), format=_CUSTOM_FORMAT), drop_nulls=True)


def _refuse_kind(kind: str) -> NoReturn:
    text = (
        f"Unsupported value for '{{param}}': '{quote_value(kind)}'. "
        "This server has tools of the types 'function' and 'custom'."
    )
    refuse("unsupported_value", text)


_KIND = StringEnum("function", "custom", refuse_other=_refuse_kind)
_KINDS: dict[str, Shape] = {"function": _FUNCTION, "custom": _CUSTOM}


def _check_kind(tool: JsonObject) -> None:
    kind = tool["type"]
    if kind not in tool:
        refuse_missing(f".{kind}")
    check_at(f".{kind}", _KINDS[kind].check, tool[kind])


_TOOL_SCHEMA = TaggedUnion("type", {kind: Object(required(**{kind: shape})) for kind, shape in _KINDS.items()})
# Of a tool of one type, the field of the other does not count.
_TOOL = Object(required(type=_KIND), _check_kind, nullable(**dict.fromkeys(_KINDS, ANYTHING))).converted(_load_tool)
TOOLS = Array(_TOOL.with_schema(_TOOL_SCHEMA), 0, MOST_TOOLS)


def _require_name(kind: str) -> Callable[[JsonObject], None]:
    def check(tool: JsonObject) -> None:
        if not isinstance(tool.get(kind), dict) or "name" not in tool[kind]:
            refuse_missing(f".{kind}.name")

    return check


_NAMED = {
    kind: Object(_require_name(kind), required(**{kind: Object(required(name=FUNCTION_NAME))})) for kind in _KINDS
}
_NAMED_TOOL = TaggedUnion("type", _NAMED, required_or_checked_as("", type=StringEnum(*_KINDS)))


def allowed_tools(named_tool: Shape) -> FieldGroup:
    """Return the fields of OpenAI's ``allowed_tools``: some of the tools, and whether one of them has to be called."""
    return required(mode=StringEnum("auto", "required"), tools=Array(named_tool, 1, MOST_TOOLS))


# A word, a named function, or ``{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}``.
TOOL_CHOICE = AnyOf(
    StringEnum(*TOOL_CHOICES),
    TaggedUnion(
        "type",
        {**_NAMED, "allowed_tools": Object(required(allowed_tools=Object(allowed_tools(_NAMED_TOOL))))},
        required_or_checked_as("", type=StringEnum(*_KINDS, "allowed_tools")),
    ),
    expected=f"one of {quote_words(TOOL_CHOICES)} or an object",
)

# The deprecated forms of the tools and of the choice among them.
FUNCTIONS = Array(_FUNCTION, 0, MOST_TOOLS).with_keywords(deprecated=True)
FUNCTION_CALL = AnyOf(StringEnum("none", "auto"), Object(required(name=FUNCTION_NAME))).with_keywords(deprecated=True)

# llama.cpp also takes {"type": "json_object", "schema": …}
_SCHEMA = nullable(schema=JSON_SCHEMA)
_WITHOUT_NAME = Object(_SCHEMA)
_NAMED_SCHEMA = Object(nullable(name=Text(1), strict=Boolean(), schema=JSON_SCHEMA))
RESPONSE_FORMAT = TaggedUnion(
    "type",
    {
        "text": _WITHOUT_NAME,
        "json_object": _WITHOUT_NAME,
        "json_schema": Object(_SCHEMA, required(json_schema=_NAMED_SCHEMA)),
    },
)


def declared_tools(tools: Iterable[Tool]) -> set[tuple[str, str]]:
    """Return the types and names of valid tools."""
    return {_kind_and_name(tool) for tool in tools}


def chosen_tools(choice: str | ToolChoice | None) -> list[tuple[tuple[str, str], str]]:
    """Return the types and names of the tools that a valid choice names, each with its path in the choice."""
    if not isinstance(choice, dict):
        return []
    if choice["type"] != "allowed_tools":
        return [(_kind_and_name(choice), "")]
    listed = choice["allowed_tools"]["tools"]
    return [(_kind_and_name(tool), f".allowed_tools.tools[{index}]") for index, tool in enumerate(listed)]


def _kind_and_name(tool: Tool | NamedTool | ToolChoice) -> tuple[str, str]:
    return tool["type"], (tool["custom"] if tool["type"] == "custom" else tool["function"])["name"]


def forces_call(choice: str | ToolChoice | ResponseToolChoice | None) -> bool:
    """Return whether a valid choice demands a call, that of a chat or of the Responses API."""
    if not isinstance(choice, dict):
        return choice == "required"
    if choice["type"] != "allowed_tools":
        return True
    # A chat has the mode one level down.
    allowed = cast("Mapping[str, str]", choice.get("allowed_tools", choice))
    return allowed["mode"] == "required"
