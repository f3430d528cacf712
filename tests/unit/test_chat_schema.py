"""Which chat completion requests pass, and the error of every other one."""

import copy
import random
from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.wire import ChatCompletionRequest, load
from tests.support.schema_errors import load_error

SCHEMA = ChatCompletionRequest()
HELLO = {"role": "user", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}}
FULL: dict[str, Any] = {
    "model": "mistral-7b-instruct",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}], "name": "ada"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x", "detail": "low"}}]},
        CALLS,
        {"role": "tool", "content": "a cat", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "", "reasoning_content": "A cat."},
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "response_format": FORMAT,
    "stop": ["END", "STOP"],
    "seed": -1,
    "logit_bias": {"50256": -100, "7": 1.5},
    "logprobs": True,
    "top_logprobs": 20,
    "temperature": 2,
    "top_p": 0,
    "n": 128,
    "max_completion_tokens": 300,
    "stream": True,
    "stream_options": {"include_usage": True},
    "metadata": {"key": "value"},
    "session_id": "a.b:c_d-1",
    "reasoning_effort": "high",
    "min_p": 0.05,
    "samplers": ["top_k", "temperature"],
    "speculative.n_max": 4,
    "an_unknown_field": {"nested": [None, 1, "x"]},
}


def test_good_chat_request_passes_unchanged_with_unknown_fields() -> None:
    before = copy.deepcopy(FULL)
    assert load(SCHEMA, FULL) == before
    assert before == FULL


def test_null_chat_fields_are_absent_and_unknown_nulls_pass() -> None:
    assert load(SCHEMA, {"messages": [HELLO], "temperature": None, "tools": None, "unheard_of": None}) == {
        "messages": [HELLO],
        "unheard_of": None,
    }


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"temperature": "hot"}, "temperature", "invalid_type", "expected a decimal, but got a string instead"),
        ({"temperature": True}, "temperature", "invalid_type", "got a boolean"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value", "Expected a value <= 2, but got 2.5"),
        ({"temperature": -0.1}, "temperature", "decimal_below_min_value", ">= 0"),
        ({"temperature": 10**5000}, "temperature", "decimal_above_max_value", "<= 2"),
        ({"top_n_sigma": float("nan")}, "top_n_sigma", "invalid_value", "finite"),
        ({"top_p": 1.1}, "top_p", "decimal_above_max_value", "<= 1"),
        ({"presence_penalty": -3}, "presence_penalty", "decimal_below_min_value", ">= -2"),
        (
            {"n": 130},
            "n",
            "integer_above_max_value",
            "Invalid 'n': integer above maximum value. Expected a value <= 128, but got 130 instead.",
        ),
        ({"n": 0}, "n", "integer_below_min_value", ">= 1"),
        ({"n": 1.5}, "n", "invalid_type", "expected an integer, but got a decimal"),
        ({"seed": 2**63}, "seed", "integer_above_max_value", "<= 9223372036854775807"),
        ({"max_tokens": -2}, "max_tokens", "integer_below_min_value", ">= -1"),
        (
            {"max_tokens": 5, "max_completion_tokens": 5},
            "max_completion_tokens",
            "mutually_exclusive_parameters",
            "cannot both be given",
        ),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "integer_above_max_value", "<= 20"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value", "'logprobs' is true"),
        ({"stream": "yes"}, "stream", "invalid_type", "expected a boolean"),
        ({"stream_options": {}}, "stream_options", "invalid_value", "'stream' is true"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "invalid_type",
            "a boolean",
        ),
        ({"stop": 5}, "stop", "invalid_type", "a string or an array of strings"),
        ({"stop": ["a", "b", 3]}, "stop[2]", "invalid_type", "expected a string"),
        ({"stop": ["x"] * 65}, "stop", "array_above_max_length", "at most 64"),
        ({"logit_bias": {"50256": 101}}, "logit_bias.50256", "decimal_above_max_value", "<= 100"),
        ({"logit_bias": {"hello": 1}}, "logit_bias.hello", "invalid_value", "token id"),
        ({"logit_bias": [[5]]}, "logit_bias[0]", "invalid_type", "a token and a bias"),
        ({"logit_bias": [[5, "x"]]}, "logit_bias[0][1]", "invalid_type", "a decimal"),
        ({"n": 1e30}, "n", "integer_above_max_value", "got 1e+30"),
        ({"model": 7}, "model", "invalid_type", "expected a string"),
        ({"model": "m" * 257}, "model", "string_above_max_length", "at most 256"),
        ({"session_id": "a b"}, "session_id", "invalid_value", "not allowed"),
        ({"session_id": "s" * 129}, "session_id", "string_above_max_length", "128"),
        ({"use_history": 1}, "use_history", "invalid_type", "expected a boolean"),
        ({"store": 1}, "store", "invalid_type", "a boolean"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type", "a string"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "invalid_value", "at most 16"),
        ({"modalities": ["text", "audio"]}, "modalities[1]", "unsupported_value", "'text' only"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value", "'minimal'"),
        ({"reasoning_format": "x"}, "reasoning_format", "invalid_value", "'deepseek'"),
        ({"repeat_last_n": 2**31 - 1}, "repeat_last_n", "integer_above_max_value", "<= 1048576"),
        ({"dry_sequence_breakers": ["x"] * 33}, "dry_sequence_breakers", "array_above_max_length", "at most 32"),
        ({"dry_sequence_breakers": ["x" * 257]}, "dry_sequence_breakers[0]", "string_above_max_length", "at most 256"),
        ({"stop": ["x" * 1025]}, "stop[0]", "string_above_max_length", "at most 1024"),
        ({"n_discard": -1}, "n_discard", "integer_below_min_value", ">= 0"),
        ({"n_discard": 2**31}, "n_discard", "integer_above_max_value", "<= 2147483647"),
        ({"n_keep": -2}, "n_keep", "integer_below_min_value", ">= -1"),
        ({"n_cache_reuse": -1}, "n_cache_reuse", "integer_below_min_value", ">= 0"),
        ({"reasoning_budget_tokens": -2}, "reasoning_budget_tokens", "integer_below_min_value", ">= -1"),
        ({"thinking_budget_tokens": 2**31}, "thinking_budget_tokens", "integer_above_max_value", "<= 2147483647"),
        ({"adaptive_decay": 1}, "adaptive_decay", "decimal_above_max_value", "<= 0.99"),
        ({"adaptive_target": -2}, "adaptive_target", "decimal_below_min_value", ">= -1"),
        ({"repeat_penalty": 1e308}, "repeat_penalty", "decimal_above_max_value", "<= 1000000"),
        ({"mirostat_tau": 1e9}, "mirostat_tau", "decimal_above_max_value", "<= 1000000"),
        ({"dynatemp_exponent": -1e9}, "dynatemp_exponent", "decimal_below_min_value", ">= -1000000"),
        ({"dry_multiplier": 1e9}, "dry_multiplier", "decimal_above_max_value", "<= 1000000"),
        ({"dry_base": 1e9}, "dry_base", "decimal_above_max_value", "<= 1000000"),
        ({"top_n_sigma": 1e9}, "top_n_sigma", "decimal_above_max_value", "<= 1000000"),
        ({"samplers": ["top_p"] * 17}, "samplers", "array_above_max_length", "at most 16"),
        ({"samplers": ["dry", "top_k", "dry"]}, "samplers[2]", "invalid_value", "only allowed once"),
        ({"lora": [{"id": 0, "scale": 1}] * 101}, "lora", "array_above_max_length", "at most 100"),
        ({"lora": ["x"]}, "lora[0]", "invalid_type", "an object"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias", "invalid_value", "at most 1024"),
        ({"logit_bias": [[1, 1]] * 1025}, "logit_bias", "array_above_max_length", "at most 1024"),
        ({"logit_bias": [["x" * 257, 1]]}, "logit_bias[0][0]", "string_above_max_length", "at most 256"),
        (
            {"chat_template_kwargs": {f"x{n}": 1 for n in range(65)}},
            "chat_template_kwargs",
            "invalid_value",
            "at most 64",
        ),
        ({"continue_final_message": "all"}, "continue_final_message", "invalid_value", "'content'"),
        (
            {"messages": [HELLO | {f"x{n}": 1 for n in range(64)}]},
            "messages[0]",
            "object_above_max_properties",
            "at most 64",
        ),
        ({"samplers": ["top_k", 1]}, "samplers[1]", "invalid_type", "a string"),
        ({"samplers": ["dry", "infill", "top_k"]}, "samplers[1]", "invalid_value", "after 'top_k'"),
        ({"samplers": ["top_k", "infill"], "top_k": 0}, "top_k", "invalid_value", "1 to 2000"),
        ({"samplers": ["top_k", "infill"], "top_k": 2001}, "top_k", "invalid_value", "1 to 2000"),
        ({"n_probs": 101}, "n_probs", "integer_above_max_value", "<= 100"),
        ({"chat_parser": "{}"}, "chat_parser", "unsupported_value", "own use"),
        ({"chat_format": 99}, "chat_format", "unsupported_value", "own use"),
        ({"grammar_triggers": [{"type": 9, "value": "x"}]}, "grammar_triggers", "unsupported_value", "own use"),
        ({"grammar": "(" * 70_000}, "grammar", "string_above_max_length", "65536"),
        ({"grammar": "(" * 501}, "grammar", "invalid_value", "nested too deeply"),
        ({"grammar": "x", "json_schema": {}}, "json_schema", "mutually_exclusive_parameters", "'grammar'"),
        ({"grammar": "x", "ignore_eos": True}, "ignore_eos", "mutually_exclusive_parameters", "'grammar'"),
        (
            {"response_format": FORMAT, "ignore_eos": True},
            "ignore_eos",
            "mutually_exclusive_parameters",
            "'response_format'",
        ),
        ({"json_schema": {"enum": ["x"] * 10_001}}, "json_schema", "invalid_json_schema", "at most 10000 values"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs", "invalid_type", "an object"),
    ],
)
def test_bad_chat_field_is_refused_with_code_and_message(
    fields: dict[str, Any], param: str, code: str, words: str
) -> None:
    error = load_error(SCHEMA, {"messages": [HELLO], **fields})
    assert (error.status, error.param, error.code) == (400, param, code)
    assert words in error.message
    assert "{" not in error.message


@pytest.mark.parametrize("payload", [None, [], "text", 5, True])
def test_chat_body_that_is_no_object_is_refused(payload: object) -> None:
    error = load_error(SCHEMA, payload)
    assert (error.param, error.code) == (None, "invalid_type")


def test_missing_messages_field_is_named() -> None:
    error = load_error(SCHEMA, {"model": "m"})
    assert error.message == "Missing required parameter: 'messages'."
    assert (error.param, error.code) == ("messages", "missing_required_parameter")


def test_first_declared_of_several_bad_fields_is_reported() -> None:
    wrong = {"top_p": 9, "messages": [], "temperature": 9}
    assert load_error(SCHEMA, wrong).param == load_error(SCHEMA, dict(reversed(wrong.items()))).param == "temperature"


_ODD_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 2**63, 10**400, float("inf"), "", "x", "\ud800", "a\0b", "{param}", [], {}, [[]], [{}],
    {"type": "text"}, {"type": ["text"]}, {"type": {}}, {"": ""}, [None], ["x", 1],
]  # fmt: skip


def _locations(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) inside a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(value, key) for key, _ in pairs]
    return found + [place for _, child in pairs for place in _locations(child)]


def test_random_chat_requests_pass_or_are_refused_without_other_errors() -> None:
    """Two thousand requests, each with a few fields replaced or removed at random."""
    dice = random.Random(20_250_101)
    refusals: list[InvalidRequest] = []
    for _ in range(2000):
        payload = copy.deepcopy(FULL)
        for _ in range(dice.randint(1, 4)):
            container, key = dice.choice(_locations(payload))
            if dice.random() < 0.2:
                del container[key]
            else:
                container[key] = copy.deepcopy(dice.choice(_ODD_VALUES))
        try:
            load(SCHEMA, payload)
        except InvalidRequest as error:
            refusals.append(error)
    assert 1000 < len(refusals) < 2000
    assert all(refusal.code and len(refusal.message) < 500 for refusal in refusals)
