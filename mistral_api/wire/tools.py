"""Tools, the choice among them, and the format of the answer (OpenAI's ChatCompletionTool and its kin)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mistral_api.wire.constraints import check_schema
from mistral_api.wire.field_errors import quote_name, refuse, refuse_missing, refuse_type
from mistral_api.wire.fields import (
    CheckedField,
    check_array,
    check_boolean,
    check_choice,
    check_object,
    check_text,
    without_nulls,
)

MOST_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES = ("none", "auto", "required")
_FORMATS = ("text", "json_object", "json_schema")


def check_function_name(name: Any, path: str) -> None:
    """Refuse what no function can be called."""
    check_text(name, 1, 64, path)
    if not _NAME.fullmatch(name):
        refuse("invalid_value", "Invalid '{param}': a function's name has letters, digits, '_' and '-' only.", path)


def check_function(function: Any, path: str) -> None:
    """Refuse what is no function: it has a name, and maybe a description, parameters and ``strict``."""
    check_object(function, path)
    if "name" not in function:
        refuse_missing(f"{path}.name")
    check_function_name(function["name"], f"{path}.name")
    if function.get("description") is not None:
        check_text(function["description"], path=f"{path}.description")
    if function.get("parameters") is not None:
        check_schema(function["parameters"], f"{path}.parameters")
    if function.get("strict") is not None:
        check_boolean(function["strict"], f"{path}.strict")


class Tools(CheckedField):
    """The functions that the model may call; a null description counts as absent."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        tools = super()._deserialize(value, attr, data, **kwargs)
        return [{**tool, "function": without_nulls(tool["function"])} for tool in tools]

    def check(self, value: Any) -> None:
        """Refuse the first tool that is wrong."""
        check_array(value, 0, MOST_TOOLS)
        for index, tool in enumerate(value):
            path = f"[{index}]"
            check_object(tool, path)
            if "type" not in tool:
                refuse_missing(f"{path}.type")
            if tool["type"] != "function":
                text = "Unsupported value for '{param}': this server has tools of type 'function' only."
                refuse("unsupported_value", text, f"{path}.type")
            if "function" not in tool:
                refuse_missing(f"{path}.function")
            check_function(tool["function"], f"{path}.function")


class Functions(CheckedField):
    """The deprecated form of the tools."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return [without_nulls(function) for function in super()._deserialize(value, attr, data, **kwargs)]

    def check(self, value: Any) -> None:
        """Refuse the first function that is wrong."""
        check_array(value, 0, MOST_TOOLS)
        for index, function in enumerate(value):
            check_function(function, f"[{index}]")


class FunctionCall(CheckedField):
    """The deprecated form of the choice: ``none``, ``auto``, or an object with a name."""

    def check(self, value: Any) -> None:
        """Refuse what is neither."""
        if isinstance(value, str):
            check_choice(value, _CHOICES[:2])
            return
        check_object(value)
        if "name" not in value:
            refuse_missing(".name")
        check_function_name(value["name"], ".name")


def _check_named(value: Any, path: str) -> None:
    """``{"type": "function", "function": {"name": …}}``"""
    check_object(value, path)
    check_choice(value.get("type", ""), ("function",), f"{path}.type")
    if not isinstance(value.get("function"), dict) or "name" not in value["function"]:
        refuse_missing(f"{path}.function.name")
    check_function_name(value["function"]["name"], f"{path}.function.name")


def check_allowed(value: Any, path: str, check_named: Callable[[Any, str], None]) -> None:
    """Refuse what is none of OpenAI's ``allowed_tools``: some of the tools, and whether one has to be called."""
    check_object(value, path)
    for name in ("mode", "tools"):
        if name not in value:
            refuse_missing(f"{path}.{name}")
    check_choice(value["mode"], ("auto", "required"), f"{path}.mode")
    check_array(value["tools"], 1, MOST_TOOLS, f"{path}.tools")
    for index, tool in enumerate(value["tools"]):
        check_named(tool, f"{path}.tools[{index}]")


class ToolChoice(CheckedField):
    """``none``, ``auto``, ``required``, a named function, or ``{"type": "allowed_tools", "allowed_tools": …}``."""

    def check(self, value: Any) -> None:
        """Refuse what is neither a known word nor one of the objects."""
        if isinstance(value, str):
            check_choice(value, _CHOICES)
            return
        if not isinstance(value, dict):
            refuse_type(f"one of {quote_name(_CHOICES)} or an object", value)
        self.check_chosen(value)

    def check_chosen(self, value: dict[str, Any]) -> None:
        """Refuse an object that is neither of the two."""
        check_choice(value.get("type", ""), ("function", "allowed_tools"), ".type")
        if value["type"] == "function":
            _check_named(value, "")
        elif "allowed_tools" not in value:
            refuse_missing(".allowed_tools")
        else:
            check_allowed(value["allowed_tools"], ".allowed_tools", _check_named)


def chosen_names(choice: Any) -> list[tuple[str, str]]:
    """The functions that a valid choice names, each with its place in it."""
    if not isinstance(choice, dict):
        return []
    if choice["type"] == "function":
        return [(choice["function"]["name"], "")]
    listed = choice["allowed_tools"]["tools"]
    return [(tool["function"]["name"], f".allowed_tools.tools[{index}]") for index, tool in enumerate(listed)]


def forces_a_call(choice: Any) -> bool:
    """Whether a valid choice demands a call."""
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        choice = choice["allowed_tools"]["mode"]
    return isinstance(choice, dict) or str(choice) == "required"


def _check_named_schema(value: Any, path: str = ".json_schema") -> None:
    check_object(value, path)
    if value.get("name") is not None:
        check_text(value["name"], 1, path=f"{path}.name")
    if value.get("strict") is not None:
        check_boolean(value["strict"], f"{path}.strict")
    if value.get("schema") is not None:
        check_schema(value["schema"], f"{path}.schema")


class ResponseFormat(CheckedField):
    """``text``, ``json_object``, or ``json_schema`` with a schema."""

    def check(self, value: Any) -> None:
        """Refuse an unknown type, or a schema that is no object."""
        check_object(value)
        if "type" not in value:
            refuse_missing(".type")
        check_choice(value["type"], _FORMATS, ".type")
        # llama.cpp also takes {"type": "json_object", "schema": …}
        if value.get("schema") is not None:
            check_schema(value["schema"], ".schema")
        if value["type"] == "json_schema":
            if "json_schema" not in value:
                refuse_missing(".json_schema")
            _check_named_schema(value["json_schema"])
