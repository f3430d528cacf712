"""A tool choice that llama.cpp does not keep: ``required`` and named functions it reads as ``auto``.

What it does keep is a JSON schema for the answer, so the model is made to write the call as JSON text, which
``inference.reshaping.calls`` turns into ``tool_calls``. The tools are sent all the same: the model's template
tells it what they are for; with ``tool_choice: "none"`` llama.cpp looks for no calls in the answer itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mistral_api.schemas.contradictions import DATA, NAMED_SCHEMAS

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class ForcedToolChoice:
    """The call that has to be made: to one of these tools."""

    tools: list[dict[str, Any]]
    named: bool

    @property
    def only(self) -> str | None:
        """The one function there is to call."""
        return str(self.tools[0]["function"]["name"]) if len(self.tools) == 1 else None

    @property
    def finish_reason(self) -> str:
        """OpenAI says ``stop`` where the client itself named the function."""
        return "stop" if self.named else "tool_calls"

    def constrain(self, sent: dict[str, Any]) -> dict[str, Any]:
        """The request with the schema of the call in place of the choice."""
        schema = _parameters(self.tools[0]) if self.only else {"anyOf": list(map(_wrapped, range(128), self.tools))}
        form = {"type": "json_schema", "json_schema": {"name": "tool_call", "strict": True, "schema": schema}}
        return sent | {"tool_choice": "none", "response_format": form}


def filter_allowed_tools(payload: dict[str, Any]) -> dict[str, Any]:
    """The request with ``{"type": "allowed_tools", …}`` as what it means: these tools alone, in that mode."""
    choice = payload.get("tool_choice")
    if not isinstance(choice, dict) or choice["type"] != "allowed_tools":
        return payload
    names = {tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]}
    tools = [tool for tool in payload["tools"] if tool["function"]["name"] in names]
    return payload | {"tools": tools, "tool_choice": choice["allowed_tools"]["mode"]}


def forced_tool_choice(payload: dict[str, Any]) -> ForcedToolChoice | None:
    """The call that a request demands, if it does."""
    choice = payload.get("tool_choice")
    if choice == "required":
        return ForcedToolChoice(payload["tools"], named=False)
    if not isinstance(choice, dict):
        return None
    name = choice["function"]["name"]
    return ForcedToolChoice([tool for tool in payload["tools"] if tool["function"]["name"] == name][:1], named=True)


def _parameters(tool: dict[str, Any]) -> dict[str, Any]:
    """The schema of the arguments; a function without parameters has none (OpenAI's ``FunctionObject``)."""
    schema = tool["function"].get("parameters") or _NO_ARGUMENTS
    return schema if "type" in schema or "$ref" in schema else schema | {"type": "object"}


def _wrapped(index: int, tool: dict[str, Any]) -> dict[str, Any]:
    place = f"#/anyOf/{index}/properties/arguments"
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool["function"]["name"]},
            "arguments": _moved(_parameters(tool), place),
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references still point into it where it stands now; its depth is bounded (``schemas.loading``)."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {keyword: _moved_value(keyword, value, place) for keyword, value in schema.items()}
    if isinstance(schema.get("$ref"), str) and schema["$ref"].startswith("#"):
        moved["$ref"] = place + schema["$ref"][1:]
    return moved


def _moved_value(keyword: str, value: Any, place: str) -> Any:
    """What a keyword of a schema says: data, schemas by their names, or schemas."""
    if keyword in DATA:
        return value
    if keyword in NAMED_SCHEMAS and isinstance(value, dict):
        return {name: _moved(each, place) for name, each in value.items()}
    return _moved(value, place)
