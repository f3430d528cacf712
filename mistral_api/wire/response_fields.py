"""The fields of a Responses request that have a form of their own: flat tools, formats, conversations."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from mistral_api.wire.constraints import check_schema
from mistral_api.wire.field_errors import quote_value, refuse, refuse_missing, refuse_type
from mistral_api.wire.fields import CheckedField, check_array, check_boolean, check_choice, check_object, check_text
from mistral_api.wire.items import Items
from mistral_api.wire.sampling import valid_session_id
from mistral_api.wire.tools import MOST_TOOLS, ToolChoice, check_allowed, check_function, check_function_name

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
INCLUDABLE = (
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
)
# Refused, since to ignore them would change the answer unseen; and what to do instead.
UNSUPPORTED = {
    "prompt": "This server keeps no prompt templates: send 'instructions' and 'input'.",
    "context_management": "This server does not compact; 'truncation' may be 'auto'.",
    "use_history": "Continue with 'previous_response_id' or 'conversation'.",
    "messages": "In the Responses API it is 'input'.",
    "max_tokens": "In the Responses API it is 'max_output_tokens'.",
    "max_completion_tokens": "In the Responses API it is 'max_output_tokens'.",
    "response_format": "In the Responses API it is 'text.format'.",
    "reasoning_effort": "In the Responses API it is 'reasoning.effort'.",
    "verbosity": "In the Responses API it is 'text.verbosity'.",
    "functions": "In the Responses API they are 'tools'.",
    "function_call": "In the Responses API it is 'tool_choice'.",
    "logprobs": "In the Responses API 'include' names 'message.output_text.logprobs'.",
}
RESPONSE_ID = re.compile(r"resp_[A-Za-z0-9_-]{1,128}")
_FORMATS = ("text", "json_object", "json_schema")


class ResponseInput(Items):
    """A string, or items."""

    def check(self, value: Any) -> None:
        """Refuse what is neither, and the first item that is wrong."""
        if isinstance(value, str):
            return
        if not isinstance(value, list):
            refuse_type("a string or an array of items", value)
        super().check(value)


class ResponseId(CheckedField):
    """The id of a response."""

    def check(self, value: Any) -> None:
        """Refuse what cannot be one."""
        check_text(value)
        if not RESPONSE_ID.fullmatch(value):
            refuse(
                "invalid_value", f"Invalid '{{param}}': '{quote_value(value)}'. Expected an ID that begins with 'resp'."
            )


class ConversationName(CheckedField):
    """The id of a conversation, or an object with it; either becomes the id."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        super()._deserialize(value, attr, data, **kwargs)
        return value["id"] if isinstance(value, dict) else value

    def check(self, value: Any) -> None:
        """Refuse what cannot be one."""
        path = ""
        if isinstance(value, dict):
            path = ".id"
            if "id" not in value:
                refuse_missing(path)
            value = value["id"]
            check_text(value, path=path)
        elif not isinstance(value, str):
            refuse_type("a string or an object", value)
        if not value or not valid_session_id(value):
            refuse(
                "invalid_value", f"Invalid '{{param}}': '{quote_value(value)}' is not the id of a conversation.", path
            )


def _refuse_hosted(kind: Any, path: str) -> NoReturn:
    check_text(kind, path=path)
    text = f"Unsupported value for '{{param}}': '{quote_value(kind)}'. This server has function tools only."
    refuse("unsupported_value", text, path)


class FunctionTools(CheckedField):
    """Functions in the flat form: ``{"type": "function", "name": …, "parameters": …, "strict": …}``."""

    def check(self, value: Any) -> None:
        """Refuse the first tool that is wrong, or that OpenAI would run itself."""
        check_array(value, 0, MOST_TOOLS)
        for index, tool in enumerate(value):
            path = f"[{index}]"
            check_object(tool, path)
            if "type" not in tool:
                refuse_missing(f"{path}.type")
            if tool["type"] != "function":
                _refuse_hosted(tool["type"], f"{path}.type")
            check_function(tool, path)


class ResponseToolChoice(ToolChoice):
    """A word, one function, or ``{"type": "allowed_tools", "mode": …, "tools": […]}``: flat, unlike a chat's."""

    def check_chosen(self, value: dict[str, Any]) -> None:
        """Refuse an object that is neither of the two."""
        if "type" not in value:
            refuse_missing(".type")
        if value["type"] == "allowed_tools":
            check_allowed(value, "", _check_named)
        else:
            _check_named(value, "")


def _check_named(value: Any, path: str) -> None:
    check_object(value, path)
    if value.get("type") != "function":
        _refuse_hosted(value.get("type"), f"{path}.type")
    if "name" not in value:
        refuse_missing(f"{path}.name")
    check_function_name(value["name"], f"{path}.name")


def response_tool_names(choice: Any) -> list[str]:
    """The functions that a valid tool choice names."""
    if not isinstance(choice, dict):
        return []
    return [tool["name"] for tool in choice.get("tools", [choice])]


def response_forces_call(choice: Any) -> bool:
    """Whether a valid tool choice demands a call."""
    if isinstance(choice, dict):
        return bool(choice["type"] == "function" or choice["mode"] == "required")
    return bool(choice == "required")


class TextOptions(CheckedField):
    """``{"format": …, "verbosity": …}``; the format is flat, unlike a chat's ``response_format``."""

    def check(self, value: Any) -> None:
        """Refuse an unknown format, or a schema that is none."""
        check_object(value)
        if value.get("verbosity") is not None:
            check_choice(value["verbosity"], ("low", "medium", "high"), ".verbosity")
        if value.get("format") is not None:
            _check_format(value["format"], ".format")


def _check_format(value: Any, path: str) -> None:
    check_object(value, path)
    if "type" not in value:
        refuse_missing(f"{path}.type")
    check_choice(value["type"], _FORMATS, f"{path}.type")
    if value["type"] != "json_schema":
        return
    for name in ("name", "schema"):
        if name not in value:
            refuse_missing(f"{path}.{name}")
    check_function_name(value["name"], f"{path}.name")
    check_schema(value["schema"], f"{path}.schema")
    if value.get("description") is not None:
        check_text(value["description"], path=f"{path}.description")
    if value.get("strict") is not None:
        check_boolean(value["strict"], f"{path}.strict")


class ReasoningOptions(CheckedField):
    """``{"effort": …, "summary": …}``."""

    def check(self, value: Any) -> None:
        """Refuse unknown words."""
        check_object(value)
        if value.get("effort") is not None:
            check_choice(value["effort"], EFFORTS, ".effort")
        for name in ("summary", "generate_summary"):
            if value.get(name) is not None:
                check_choice(value[name], ("auto", "concise", "detailed"), f".{name}")


class Includes(CheckedField):
    """What else an answer is to hold."""

    def check(self, value: Any) -> None:
        """Refuse what OpenAI does not know; what only its hosted tools have is never there."""
        check_array(value)
        for index, name in enumerate(value):
            check_choice(name, INCLUDABLE, f"[{index}]")
