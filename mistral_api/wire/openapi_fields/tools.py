"""Tools, the choice among them, and the format of the answer."""

from __future__ import annotations

from mistral_api.wire import tools
from mistral_api.wire.json_schema import (
    BOOLEAN,
    FILLED,
    OBJECT,
    TEXT,
    Shape,
    array,
    either,
    nullable,
    only,
    record,
    text,
    words,
)
from mistral_api.wire.openapi_fields.registry import fixed

FUNCTION_NAME = text(form="[A-Za-z0-9_-]{1,64}")
# What a function may have beside its name, in chats and in responses.
FUNCTION_EXTRAS: dict[str, Shape] = {
    "description": nullable(TEXT),
    "parameters": nullable(OBJECT | {"description": "A JSON schema of the arguments."}),
    "strict": nullable(BOOLEAN),
}

_TOOL = record({"type": only("function"), "function": record({"name": FUNCTION_NAME}, FUNCTION_EXTRAS)})
fixed(tools.Tools, array(_TOOL, 0, tools.MOST_TOOLS))

_DEPRECATED: Shape = {"deprecated": True}
fixed(tools.Functions, array(record({"name": FUNCTION_NAME}, FUNCTION_EXTRAS), 0, tools.MOST_TOOLS) | _DEPRECATED)
fixed(tools.FunctionCall, either(words("none", "auto"), record({"name": FUNCTION_NAME})) | _DEPRECATED)

_NAMED = record({"type": only("function"), "function": record({"name": FUNCTION_NAME})})
_ALLOWED = record({"mode": words("auto", "required"), "tools": array(_NAMED, 1, tools.MOST_TOOLS)})
fixed(
    tools.ToolChoice,
    either(
        words("none", "auto", "required"),
        _NAMED,
        record({"type": only("allowed_tools"), "allowed_tools": _ALLOWED}),
    ),
)

_SCHEMA = {"schema": nullable(OBJECT)}
_NAMED_SCHEMA = record({}, {"name": nullable(FILLED), "strict": nullable(BOOLEAN), **_SCHEMA})
fixed(
    tools.ResponseFormat,
    either(
        record({"type": words("text", "json_object")}, _SCHEMA),
        record({"type": only("json_schema"), "json_schema": _NAMED_SCHEMA}, _SCHEMA),
    ),
)
