"""Which tools, tool choices and response formats a chat request may contain."""

from typing import Any

import pytest

from mistral_api.wire import ChatCompletionRequest, load
from mistral_api.wire.tools import forces_call
from tests.support.schema_errors import load_error

SCHEMA = ChatCompletionRequest()
HELLO = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}
NAMED = {"type": "function", "function": {"name": "look"}}


def _allowed(**fields: Any) -> dict[str, Any]:
    return {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": fields}}


@pytest.mark.parametrize(
    "choice", ["none", "auto", "required", NAMED, _allowed(mode="auto", tools=[NAMED])["tool_choice"]]
)
def test_good_tool_choice_passes_unchanged(choice: Any) -> None:
    payload = {"messages": [HELLO], "tools": [TOOL], "tool_choice": choice}
    assert load(SCHEMA, payload) == payload


def test_null_tool_description_is_dropped() -> None:
    tool = {"type": "function", "function": {"name": "look", "description": None}}
    assert load(SCHEMA, {"messages": [HELLO], "tools": [tool]})["tools"] == [
        {"type": "function", "function": {"name": "look"}}
    ]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": "x"}, "tools", "invalid_type"),
        ({"tools": [TOOL] * 129}, "tools", "array_above_max_length"),
        ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [{"type": "abacus", "abacus": {}}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].custom.name", "missing_required_parameter"),
        ({"tools": [{"type": "custom", "function": {"name": "x"}}]}, "tools[0].custom", "missing_required_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
        (
            {"tools": [{"type": "function", "function": {"name": "f" * 129}}]},
            "tools[0].function.name",
            "string_above_max_length",
        ),
        (
            {"tools": [TOOL, {"type": "function", "function": {"name": "f", "parameters": "x"}}]},
            "tools[1].function.parameters",
            "invalid_type",
        ),
        ({"tool_choice": "perhaps"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
            "invalid_value",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function"}},
            "tool_choice.function.name",
            "missing_required_parameter",
        ),
        (_allowed(mode="auto"), "tool_choice.allowed_tools.tools", "missing_required_parameter"),
        (_allowed(mode="auto", tools=[]), "tool_choice.allowed_tools.tools", "empty_array"),
        (_allowed(mode="none", tools=[NAMED]), "tool_choice.allowed_tools.mode", "invalid_value"),
        (_allowed(mode="auto", tools=["look"]), "tool_choice.allowed_tools.tools[0]", "invalid_type"),
        (
            _allowed(mode="auto", tools=[NAMED, {"type": "function", "function": {"name": "f"}}]),
            "tool_choice.allowed_tools.tools[1]",
            "invalid_value",
        ),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools", "missing_required_parameter"),
        ({"tool_choice": {"type": "abacus"}}, "tool_choice.type", "invalid_value"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice.custom.name", "missing_required_parameter"),
        (
            {"tools": [TOOL], "tool_choice": "required", "ignore_eos": True},
            "ignore_eos",
            "mutually_exclusive_parameters",
        ),
        ({"functions": {"name": "look"}}, "functions", "invalid_type"),
        ({"functions": [{"name": "a b"}]}, "functions[0].name", "invalid_value"),
        ({"functions": [{"name": "look"}], "tools": [TOOL]}, "functions", "mutually_exclusive_parameters"),
        ({"functions": [{"name": "look"}], "function_call": {"name": "f"}}, "function_call", "invalid_value"),
        ({"function_call": {"name": "look"}}, "function_call", "invalid_value"),
        ({"function_call": {}}, "function_call.name", "missing_required_parameter"),
        ({"function_call": "required"}, "function_call", "invalid_value"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": ["text"]}}, "response_format.type", "invalid_type"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": 5, "schema": {}}}},
            "response_format.json_schema.name",
            "invalid_type",
        ),
    ],
)
def test_bad_tools_tool_choices_and_formats_are_refused_by_field(fields: dict[str, Any], param: str, code: str) -> None:
    error = load_error(SCHEMA, {"messages": [HELLO], **fields})
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    ("choice", "forces"),
    [
        (None, False),
        ("auto", False),
        ("none", False),
        ("required", True),
        ({"type": "function", "function": {"name": "f"}}, True),
        ({"type": "shell"}, True),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, True),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, False),
        ({"type": "allowed_tools", "mode": "required", "tools": []}, True),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, False),
    ],
)
def test_choice_of_a_chat_or_of_a_response_forces_a_call(choice: Any, forces: bool) -> None:
    assert forces_call(choice) is forces
