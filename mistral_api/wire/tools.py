"""Tools, the choice among them, and the format of the response (OpenAI's ChatCompletionTool and its kin)."""

from __future__ import annotations

import re

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ToolChoice
from mistral_api.wire.constraints import JSON_SCHEMA
from mistral_api.wire.container_shapes import (
    Array,
    FieldGroup,
    Object,
    TaggedUnion,
    nullable,
    required,
    required_or_checked_as,
)
from mistral_api.wire.field_errors import quote_words, refuse, refuse_missing
from mistral_api.wire.shapes import AnyOf, Boolean, Constant, Shape, StringEnum, Text

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
_FUNCTION_TYPE = Constant(
    "function", "unsupported_value", "Unsupported value for '{param}': this server has tools of type 'function' only."
)
TOOLS = Array(Object(required(type=_FUNCTION_TYPE), required(function=_FUNCTION)), 0, MOST_TOOLS)


def _require_function_name(tool: JsonObject) -> None:
    if not isinstance(tool.get("function"), dict) or "name" not in tool["function"]:
        refuse_missing(".function.name")


_NAMED_FUNCTION = (_require_function_name, required(function=Object(required(name=FUNCTION_NAME))))
_NAMED_TOOL = Object(required_or_checked_as("", type=StringEnum("function")), *_NAMED_FUNCTION)


def allowed_tools(named_tool: Shape) -> FieldGroup:
    """Return the fields of OpenAI's ``allowed_tools``: some of the tools, and whether one of them has to be called."""
    return required(mode=StringEnum("auto", "required"), tools=Array(named_tool, 1, MOST_TOOLS))


# A word, a named function, or ``{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}``.
TOOL_CHOICE = AnyOf(
    StringEnum(*TOOL_CHOICES),
    TaggedUnion(
        "type",
        {
            "function": Object(*_NAMED_FUNCTION),
            "allowed_tools": Object(required(allowed_tools=Object(allowed_tools(_NAMED_TOOL)))),
        },
        required_or_checked_as("", type=StringEnum("function", "allowed_tools")),
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


def chosen_functions(choice: str | ToolChoice | None) -> list[tuple[str, str]]:
    """Return the names of the functions that a valid choice names, each with its path in the choice."""
    if not isinstance(choice, dict):
        return []
    if choice["type"] == "function":
        return [(choice["function"]["name"], "")]
    listed = choice["allowed_tools"]["tools"]
    return [(tool["function"]["name"], f".allowed_tools.tools[{index}]") for index, tool in enumerate(listed)]


def forces_call(choice: str | ToolChoice | None) -> bool:
    """Return whether a valid choice demands a call."""
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        choice = choice["allowed_tools"]["mode"]
    return isinstance(choice, dict) or choice == "required"
