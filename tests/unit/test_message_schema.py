"""Which messages a chat request may contain."""

from typing import Any

import pytest

from mistral_api.wire import ChatCompletionRequest, load
from tests.support.schema_errors import load_error

SCHEMA = ChatCompletionRequest()
HELLO = {"role": "user", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def test_nulls_replayed_by_sdks_inside_messages_are_dropped() -> None:
    replayed = {"role": "assistant", "content": "Hi", "refusal": None, "tool_calls": None, "reasoning_content": None}
    calling = {"role": "assistant", "content": None, "name": None, "tool_calls": [{**CALL, "id": None}]}
    loaded = load(SCHEMA, {"messages": [HELLO, replayed, calling]})
    assert loaded["messages"][1] == {"role": "assistant", "content": "Hi"}
    without_id = {"type": "function", "function": CALL["function"]}
    assert loaded["messages"][2] == {"role": "assistant", "content": None, "tool_calls": [without_id]}
    assert replayed["refusal"] is None


@pytest.mark.parametrize(
    ("messages", "param", "code", "words"),
    [
        ("Hello", "messages", "invalid_type", "an array"),
        ([], "messages", "empty_array", "minimum length 1"),
        ([HELLO] * 10_001, "messages", "array_above_max_length", "at most 10000"),
        ([HELLO, "x"], "messages[1]", "invalid_type", "an object"),
        ([{"content": "x"}], "messages[0].role", "missing_required_parameter", "'messages[0].role'"),
        ([{"role": "wizard", "content": "x"}], "messages[0].role", "invalid_value", "'wizard'"),
        ([{"role": None, "content": "x"}], "messages[0].role", "invalid_type", "got null"),
        ([{"role": "x" * 500, "content": "x"}], "messages[0].role", "invalid_value", "x" * 80 + "…"),
        ([{"role": "user"}], "messages[0].content", "missing_required_parameter", "content"),
        ([{"role": "user", "content": None}], "messages[0].content", "missing_required_parameter", "content"),
        ([{"role": "user", "content": 5}], "messages[0].content", "invalid_type", "a string or an array"),
        ([{"role": "user", "content": []}], "messages[0].content", "empty_array", "empty"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]", "invalid_type", "an object"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "smell"}]}],
            "messages[0].content[1].type",
            "invalid_value",
            "'image_url'",
        ),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "messages[0].content[0].text",
            "missing_required_parameter",
            "text",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages[0].content[0].image_url.url",
            "missing_required_parameter",
            "url",
        ),
        (
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}],
            "messages[0].content[0].input_audio.format",
            "missing_required_parameter",
            "format",
        ),
        ([HELLO | {"name": 5}], "messages[0].name", "invalid_type", "a string"),
        ([HELLO | {"tool_call_id": 5}], "messages[0].tool_call_id", "invalid_type", "a string"),
        (
            [{"role": "assistant", "content": None, "function_call": {"name": "f"}}],
            "messages[0].function_call.arguments",
            "missing_required_parameter",
            "arguments",
        ),
        ([HELLO | {"tool_calls": "x"}], "messages[0].tool_calls", "invalid_type", "an array"),
        (
            [HELLO, {"role": "tool", "content": "x"}],
            "messages[1].tool_call_id",
            "missing_required_parameter",
            "tool_call_id",
        ),
        (
            [CALLS | {"tool_calls": [{"function": CALL["function"]}]}],
            "messages[0].tool_calls[0].type",
            "missing_required_parameter",
            "type",
        ),
        (
            [CALLS | {"tool_calls": [CALL | {"type": "abacus"}]}],
            "messages[0].tool_calls[0].type",
            "invalid_value",
            "'function'",
        ),
        (
            [CALLS | {"tool_calls": [CALL | {"function": {"name": "f", "arguments": {}}}]}],
            "messages[0].tool_calls[0].function.arguments",
            "invalid_type",
            "a string",
        ),
    ],
)
def test_bad_message_is_refused_by_path(messages: Any, param: str, code: str, words: str) -> None:
    error = load_error(SCHEMA, {"messages": messages})
    assert (error.param, error.code) == (param, code)
    assert words in error.message
