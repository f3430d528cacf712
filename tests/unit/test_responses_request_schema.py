"""Which Responses requests and queries pass, and the error of every other one."""

import copy
from typing import Any

import pytest

from mistral_api.wire import load
from mistral_api.wire.queries import InputItemsQuery, ResponseQuery, joined_arguments
from mistral_api.wire.request_schema import RequestSchema
from mistral_api.wire.responses import InputTokensRequest, ResponseRequest
from tests.support.schema_errors import load_error

SCHEMA = ResponseRequest()
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
FORMAT = {"type": "json_schema", "name": "it", "schema": {"type": "object"}, "strict": True, "description": "x"}
FULL: dict[str, Any] = {
    "model": "smol",
    "input": [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is this?"}]},
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "a cat"},
    ],
    "instructions": "Speak French.",
    "conversation": "conv_1",
    "background": True,
    "store": True,
    "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
    "tools": [TOOL],
    "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]},
    "parallel_tool_calls": False,
    "max_tool_calls": 3,
    "max_output_tokens": 16,
    "top_logprobs": 20,
    "temperature": 2,
    "top_p": 0,
    "text": {"format": FORMAT, "verbosity": "high"},
    "reasoning": {"effort": "none", "summary": "auto"},
    "truncation": "auto",
    "metadata": {"key": "value"},
    "service_tier": "auto",
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "user": "ada",
    "min_p": 0.05,
    "an_unknown_field": {"nested": [None, 1, "x"]},
}


def test_good_responses_request_passes_unchanged_with_unknown_fields() -> None:
    before = copy.deepcopy(FULL)
    assert load(SCHEMA, FULL) == before == FULL
    assert load(InputTokensRequest(), FULL) == before


def test_conversation_is_given_as_an_id_or_an_object() -> None:
    assert load(SCHEMA, {"conversation": {"id": "conv_1"}}) == {"conversation": "conv_1"}
    assert load(SCHEMA, {"conversation": "any-session:1"}) == {"conversation": "any-session:1"}


def test_null_fields_and_inert_chat_fields_are_accepted() -> None:
    assert load(SCHEMA, {"input": "", "temperature": None, "tools": None, "conversation": None}) == {"input": ""}
    load(SCHEMA, {"input": "x", "messages": None, "functions": [], "use_history": False, "context_management": None})


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"input": 3}, "invalid_type", "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": []}, "empty_array", "input"),
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "unsupported_value", "input[0].type"),
        ({"previous_response_id": "msg_1"}, "invalid_value", "previous_response_id"),
        ({"previous_response_id": 1}, "invalid_type", "previous_response_id"),
        ({"conversation": []}, "invalid_type", "conversation"),
        ({"conversation": {}}, "missing_required_parameter", "conversation.id"),
        ({"conversation": {"id": "a b"}}, "invalid_value", "conversation.id"),
        ({"conversation": ""}, "invalid_value", "conversation"),
        ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "mutually_exclusive_parameters", "conversation"),
        ({"conversation": "conv_1", "session_id": "a"}, "mutually_exclusive_parameters", "session_id"),
        ({"background": True, "store": False}, "invalid_value", "background"),
        ({"background": "yes"}, "invalid_type", "background"),
        ({"include": ["everything"]}, "invalid_value", "include[0]"),
        ({"include": "message.output_text.logprobs"}, "invalid_type", "include"),
        ({"tools": [TOOL, {"type": "teleport"}]}, "invalid_value", "tools[1].type"),
        ({"tools": [{"type": "mcp", "server_label": "x"}], "tool_choice": "required"}, "unsupported_value",
         "tools[0].type"),
        ({"tools": [{"type": "shell", "environment": {"type": "container_auto"}}], "tool_choice": "required"},
         "unsupported_value", "tools[0].type"),
        ({"tools": [{"type": "custom"}]}, "missing_required_parameter", "tools[0].name"),
        ({"tools": [{"type": "custom", "name": "x", "format": {"type": "grammar", "syntax": "abnf"}}]},
         "missing_required_parameter", "tools[0].format.definition"),
        ({"tools": [{"type": "namespace", "name": "x", "tools": [{"type": "mcp"}]}]}, "invalid_value",
         "tools[0].tools[0].type"),
        ({"tools": [{"type": "namespace", "name": f"n{number}", "tools": [TOOL] * 128} for number in range(5)]},
         "array_above_max_length", "tools"),
        ({"tools": [{"type": "shell"}], "tool_choice": {"type": "apply_patch"}}, "invalid_value", "tool_choice"),
        ({"tools": [{"type": 1}]}, "invalid_type", "tools[0].type"),
        ({"tools": [{"name": "look"}]}, "missing_required_parameter", "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
        ({"tools": [{"type": "function", "function": {"name": "look"}}]}, "missing_required_parameter",
         "tools[0].name"),
        ({"tools": [TOOL | {"parameters": "none"}]}, "invalid_type", "tools[0].parameters"),
        ({"tool_choice": "maybe"}, "invalid_value", "tool_choice"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "unsupported_value", "tool_choice.type"),
        ({"tool_choice": {"type": "function", "name": "hear"}, "tools": [TOOL]}, "invalid_value", "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": [TOOL]}, "missing_required_parameter", "tool_choice.name"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "missing_required_parameter",
         "tool_choice.tools"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "abacus"}]}}, "invalid_value",
         "tool_choice.tools[0].type"),
        ({"tool_choice": "required", "tools": [TOOL], "ignore_eos": True}, "mutually_exclusive_parameters",
         "ignore_eos"),
        ({"max_output_tokens": 0}, "integer_below_min_value", "max_output_tokens"),
        ({"top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
        ({"n": 2}, "integer_above_max_value", "n"),
        ({"temperature": 2.1}, "decimal_above_max_value", "temperature"),
        ({"truncation": "oldest"}, "invalid_value", "truncation"),
        ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "it"}}}, "missing_required_parameter",
         "text.format.schema"),
        ({"text": {"format": FORMAT | {"schema": []}}}, "invalid_type", "text.format.schema"),
        ({"text": {"format": FORMAT}, "ignore_eos": True}, "mutually_exclusive_parameters", "ignore_eos"),
        ({"text": {"verbosity": "chatty"}}, "invalid_value", "text.verbosity"),
        ({"reasoning": {"effort": "much"}}, "invalid_value", "reasoning.effort"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"stream_options": {"include_obfuscation": True}}, "invalid_value", "stream_options"),
        ({"prompt": {"id": "pmpt_1"}}, "unsupported_parameter", "prompt"),
        ({"messages": [{"role": "user", "content": "x"}]}, "unsupported_parameter", "messages"),
        ({"max_tokens": 300}, "unsupported_parameter", "max_tokens"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"context_management": [{"type": "compaction"}]}, "unsupported_parameter", "context_management"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_bad_responses_request_field_is_refused_by_name(changes: dict[str, Any], code: str, param: str) -> None:
    refusal = load_error(SCHEMA, {"input": "Hello"} | changes)
    assert (refusal.status, refusal.code, refusal.param) == (400, code, param)
    assert param in refusal.message


def test_tools_of_which_none_can_be_called_are_refused_by_the_reason() -> None:
    empty: dict[str, Any] = {"type": "namespace", "name": "eyes", "tools": []}
    body = {"input": "x", "tools": [empty], "tool_choice": "required"}
    refusal = load_error(SCHEMA, body)
    assert (refusal.param, refusal.message) == (
        "tools",
        "Invalid 'tools': no namespace has a tool, and a call is demanded.",
    )
    refusal = load_error(SCHEMA, body | {"tools": [empty, {"type": "web_search"}]})
    assert refusal.param == "tools[1].type"


def test_hosted_tool_is_refused_with_an_explanation() -> None:
    refusal = load_error(SCHEMA, {"input": "x", "tools": [{"type": "web_search"}], "tool_choice": "required"})
    assert refusal.message == (
        "Unsupported value for 'tools[0].type': 'web_search'. Only OpenAI can run this tool, and a call is demanded."
    )


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_hosted_tool_is_taken_where_no_call_is_demanded(choice: str | None) -> None:
    request = {"input": "x", "tools": [{"type": "web_search"}, {"type": "mcp", "server_label": "x"}]}
    load(SCHEMA, request if choice is None else request | {"tool_choice": choice})
    load(SCHEMA, request | {"tools": [*request["tools"], TOOL], "tool_choice": "required"})


def test_responses_request_needs_input_or_a_previous_response_or_conversation() -> None:
    assert load_error(SCHEMA, {"model": "smol"}).code == "missing_required_parameter"
    assert load_error(InputTokensRequest(), {"instructions": "x"}).param == "input"
    load(SCHEMA, {"previous_response_id": "resp_1"})
    load(SCHEMA, {"conversation": "conv_1", "input": []})


def test_response_queries_have_defaults_and_take_both_spellings_of_include() -> None:
    assert load(InputItemsQuery(), {}) == {"limit": 20, "order": "desc"}
    assert load(ResponseQuery(), {}) == {"stream": False}
    arguments = {
        "include": ["message.input_image.image_url"],
        "include[]": ["message.output_text.logprobs"],
        "limit": ["3"],
        "after": ["msg_1"],
        "order": ["asc"],
    }
    assert load(InputItemsQuery(), joined_arguments(arguments)) == {
        "include": ["message.input_image.image_url", "message.output_text.logprobs"],
        "limit": 3,
        "after": "msg_1",
        "order": "asc",
    }
    asked = joined_arguments({"stream": ["true"], "starting_after": ["7"]})
    assert load(ResponseQuery(), asked) == {"stream": True, "starting_after": 7}


@pytest.mark.parametrize(
    ("schema", "name", "value", "code"),
    [
        (InputItemsQuery(), "limit", "0", "integer_below_min_value"),
        (InputItemsQuery(), "limit", "101", "integer_above_max_value"),
        (InputItemsQuery(), "order", "up", "invalid_value"),
        (InputItemsQuery(), "include", ["everything"], "invalid_value"),
        (ResponseQuery(), "stream", "yes", "invalid_type"),
        (ResponseQuery(), "starting_after", "-1", "integer_below_min_value"),
    ],
    ids=["limit-0", "limit-101", "order", "include", "stream", "starting_after"],
)
def test_bad_response_query_argument_is_refused(schema: RequestSchema[Any], name: str, value: Any, code: str) -> None:
    refusal = load_error(schema, {name: value})
    assert refusal.code == code
    assert str(refusal.param).startswith(name)
