"""The chat completion request that a Responses request becomes; our own chat endpoint accepts each one."""

from typing import Any

import pytest

from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.responses.prepared_response import chat_payload
from mistral_api.wire import ChatCompletionRequest, load
from mistral_api.wire.responses import ResponseRequest

MESSAGES: list[ChatMessage] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True, "description": None}
HEAR = {"type": "function", "name": "hear", "parameters": None}
CHAT_LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}
CHAT_HEAR = {"type": "function", "function": {"name": "hear"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def _chat_payload(**request: Any) -> ChatPayload:
    """Return the chat payload without its messages, after checking that it is a valid chat completion request."""
    payload = chat_payload(load(ResponseRequest(), {"input": "Hello", **request}), MESSAGES)
    assert load(ChatCompletionRequest(), payload) == payload
    assert payload.pop("messages") == MESSAGES
    return payload


def test_plain_responses_request_becomes_only_messages() -> None:
    assert _chat_payload() == {}


def test_response_only_fields_are_dropped_and_model_server_fields_are_kept() -> None:
    ours = {"instructions": "x", "store": True, "metadata": {"a": "b"}, "truncation": "auto", "background": True,
            "include": [], "previous_response_id": "resp_1", "user": "ada", "service_tier": "auto",
            "prompt_cache_key": "x", "safety_identifier": "x", "max_tool_calls": 2, "text": {"verbosity": "low"},
            "prompt": None, "messages": None, "use_history": False}  # fmt: skip
    kept = {"model": "smol", "temperature": 0.5, "top_p": 0.9, "parallel_tool_calls": False, "min_p": 0.1, "seed": 3,
            "stop": ["END"], "presence_penalty": 1, "an_unknown_field": [1]}  # fmt: skip
    assert _chat_payload(**ours, **kept) == kept


def test_output_limit_effort_and_streaming_fields_are_renamed() -> None:
    assert _chat_payload(max_output_tokens=20, reasoning={"effort": "low", "summary": "auto"}) == {
        "max_completion_tokens": 20,
        "reasoning_effort": "low",
    }
    streamed = _chat_payload(stream=True, stream_options={"include_obfuscation": False})
    assert streamed == {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("choice", "tools", "asked"),
    [
        (None, [CHAT_LOOK, CHAT_HEAR], None),
        ("auto", [CHAT_LOOK, CHAT_HEAR], "auto"),
        ("required", [CHAT_LOOK, CHAT_HEAR], "required"),
        ({"type": "function", "name": "hear"}, [CHAT_LOOK, CHAT_HEAR],
         {"type": "function", "function": {"name": "hear"}}),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "hear"}]},
         [CHAT_HEAR], "required"),
    ],
    ids=["none-given", "auto", "required", "named", "allowed"],
)  # fmt: skip
def test_response_tools_and_tool_choice_get_the_chat_form(choice: Any, tools: list[Any], asked: Any) -> None:
    payload = _chat_payload(tools=[LOOK, HEAR], tool_choice=choice)
    assert (payload["tools"], payload.get("tool_choice")) == (tools, asked)


def test_tool_choice_is_dropped_without_tools() -> None:
    assert _chat_payload(tools=[], tool_choice="auto") == {}


@pytest.mark.parametrize(
    ("text_format", "asked"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        ({"type": "json_schema", "name": "it", "schema": SCHEMA, "strict": True, "description": None},
         {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}}),
    ],
    ids=["text", "object", "schema"],
)  # fmt: skip
def test_text_format_becomes_response_format(text_format: Any, asked: Any) -> None:
    assert _chat_payload(text={"format": text_format}).get("response_format") == asked


@pytest.mark.parametrize(
    ("request_", "most"),
    [
        ({"include": ["message.output_text.logprobs"]}, 1),
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 20}, 20),
    ],
    ids=["included", "top", "both"],
)
def test_log_probabilities_are_requested_when_the_response_includes_them(request_: Any, most: int) -> None:
    assert _chat_payload(**request_) == {"logprobs": True, "top_logprobs": most}
