"""The Response object: the echoed request, its final states, and OpenAI's published schema."""

from typing import Any, get_args
from uuid import UUID

import pytest
from openai.types.responses import Response, ResponseItem, response_error

from mistral_api.conversations.item_parser import items_to_messages
from mistral_api.errors import ApiError, InvalidRequest, ModelTimeout, Unavailable
from mistral_api.payload_types.chat import ChatMessage, ToolCall
from mistral_api.payload_types.completions import GeneratedMessage
from mistral_api.payload_types.responses import Response as ResponseBody
from mistral_api.responses.response_object import (
    ResponseOutput,
    cancelled,
    complete_response,
    failed,
    in_progress,
    input_items,
    new_response,
)
from mistral_api.upstream.token_tally import TokenCounts
from mistral_api.wire import load
from mistral_api.wire.responses import ResponseRequest
from tests.support.chat_chunks import token_logprob
from tests.support.openai_schemas import validate

ANSWER_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}
FORMAT = {"type": "json_schema", "name": "it", "schema": {"type": "object"}, "strict": True}
FULL: dict[str, Any] = {
    "model": "smol",
    "input": [{"role": "user", "content": "Hello"}],
    "instructions": "Be brief.",
    "previous_response_id": "resp_1",
    "include": ["message.output_text.logprobs"],
    "tools": [FUNCTION, FUNCTION | {"name": "hear", "strict": False, "description": "It hears."}],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]},
    "parallel_tool_calls": False,
    "max_output_tokens": 16,
    "temperature": 0,
    "top_p": 0.5,
    "top_logprobs": 2,
    "text": {"format": FORMAT, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "metadata": {"key": "value"},
    "truncation": "auto",
    "store": False,
    "user": "ada",
    "prompt_cache_key": "key",
    "safety_identifier": "someone",
    "service_tier": "flex",
}
TOKENS = TokenCounts(prompt=11, cached=4, completion=5)


def _new_response(request: dict[str, Any]) -> ResponseBody:
    return new_response(load(ResponseRequest(), request), "resp_2", 1795572458, "smol")


def _output(message: GeneratedMessage, finish_reason: str = "stop", logprobs: Any = None) -> ResponseOutput:
    return ResponseOutput(ANSWER_ID, message, finish_reason, TOKENS, logprobs)


def test_new_response_has_openais_defaults() -> None:
    body = _new_response({"input": "Hello"})
    validate(Response, body)
    assert body == body | {
        "id": "resp_2", "object": "response", "created_at": 1795572458, "status": "in_progress", "model": "smol",
        "output": [], "usage": None, "error": None, "incomplete_details": None, "instructions": None,
        "metadata": {}, "temperature": 1.0, "top_p": 1.0, "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": [], "store": True, "truncation": "disabled", "background": False, "conversation": None,
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "reasoning": {"effort": None, "summary": None},
    }  # fmt: skip


def test_new_response_echoes_the_request() -> None:
    body: Any = _new_response(FULL)
    validate(Response, body)
    shown = ("instructions", "tool_choice", "temperature", "top_p", "top_logprobs", "text", "metadata", "store")
    assert {name: body[name] for name in shown} == {name: FULL[name] for name in shown}
    assert body["tools"][0] == FUNCTION | {"description": None, "strict": False}
    assert body["tools"][1] == FULL["tools"][1]
    assert body["reasoning"] == FULL["reasoning"]


def test_background_response_is_queued_and_names_its_conversation() -> None:
    request = load(ResponseRequest(), {"input": "Hello", "background": True, "conversation": {"id": "conv_1"}})
    body = new_response(request, "resp_2", 1, "smol", conversation_id=request["conversation"])
    assert (body["status"], body["conversation"]) == ("queued", {"id": "conv_1"})
    validate(Response, body)
    assert in_progress(body) == body | {"status": "in_progress"}


def test_completed_response_has_output_items_and_usage() -> None:
    message: GeneratedMessage = {
        "content": "Hi",
        "reasoning_content": "Hm",
        "tool_calls": [_call("call_1"), _call("call_2")],
    }
    body = complete_response(_new_response({"input": "Hello"}), _output(message, "tool_calls"), completed_at=1795572460)
    validate(Response, body)
    assert (body["status"], body["completed_at"]) == ("completed", 1795572460)
    kinds = [(item["type"], item["id"], item["status"]) for item in body["output"]]
    assert kinds == [
        ("reasoning", f"rs_{ANSWER_ID.hex}", "completed"),
        ("message", f"msg_{ANSWER_ID.hex}", "completed"),
        ("function_call", f"fc_{ANSWER_ID.hex}_0", "completed"),
        ("function_call", f"fc_{ANSWER_ID.hex}_1", "completed"),
    ]
    assert body["usage"] == {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 16,
    }


def _call(call_id: str) -> ToolCall:
    return {"id": call_id, "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("finish_reason", "shown"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_truncated_response_and_its_last_item_are_incomplete(finish_reason: str, shown: str) -> None:
    message: GeneratedMessage = {"content": "Hi", "reasoning_content": "Hm"}
    body = complete_response(_new_response({"input": "Hello"}), _output(message, finish_reason))
    validate(Response, body)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": shown})
    assert [item["status"] for item in body["output"]] == ["completed", "incomplete"]
    assert body["completed_at"] is None


def test_empty_answer_is_a_message_item_with_empty_text() -> None:
    body = complete_response(_new_response({"input": "Hello"}), _output({"content": ""}, "length"))
    assert validate(Response, body).output_text == ""
    assert [item["type"] for item in body["output"]] == ["message"]


def test_output_text_has_the_requested_number_of_log_probabilities() -> None:
    nothing_shown = token_logprob("H", 0) | {"bytes": None}
    body = complete_response(
        _new_response(FULL), _output({"content": "Hi"}, logprobs=[token_logprob("H", 5), nothing_shown])
    )
    validate(Response, body)
    item: Any = body["output"][0]
    shown = item["content"][0]["logprobs"]
    plain = {"token": "H", "bytes": [72], "logprob": -0.5}
    assert shown == [plain | {"top_logprobs": [plain] * 2}, plain | {"bytes": [], "top_logprobs": []}]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelTimeout("Too slow."), "server_error"),
        (InvalidRequest("Too long.", code="context_length_exceeded"), "invalid_prompt"),
        (Unavailable("Busy.", code="overloaded"), "server_error"),
    ],
    ids=["timeout", "context", "overloaded"],
)
def test_failed_response_has_an_openai_error_code_and_our_message(error: ApiError, code: str) -> None:
    body = failed(_new_response({"input": "Hello"}), error)
    assert validate(Response, body).status == "failed"
    assert body["error"] == {"code": code, "message": error.message}
    assert code in get_args(response_error.ResponseError.model_fields["code"].annotation)


def test_rate_limit_error_code_and_cancelled_status() -> None:
    error = ApiError("Slow down.")
    error.status = 429
    body: Any = failed(_new_response({"input": "Hello"}), error)
    assert body["error"]["code"] == "rate_limit_exceeded"
    assert validate(Response, cancelled(_new_response({"input": "Hello"}))).status == "cancelled"


def test_input_items_are_listed_in_message_order() -> None:
    other = UUID(int=ANSWER_ID.int + 1)
    messages: list[ChatMessage] = [
        {"role": "assistant", "content": None, "tool_calls": [_call("call_1")]},
        {"role": "tool", "content": "a cat", "tool_call_id": "call_1"},
    ]
    items = input_items(messages, [ANSWER_ID, other])
    assert [item["id"] for item in items] == [f"fc_{ANSWER_ID.hex}_0", f"fco_{other.hex}"]
    validate(list[ResponseItem], items)


def test_reasoning_travels_with_a_client_that_asks_for_its_encrypted_form() -> None:
    message: GeneratedMessage = {"content": "Hi", "reasoning_content": "Hm, hm."}
    response = new_response(load(ResponseRequest(), FULL), "resp_2", 1795572458, "smol")
    answer = ResponseOutput(ANSWER_ID, message, "stop", TokenCounts(), encrypted_reasoning=True)
    body = complete_response(response, answer)
    validate(Response, body)
    reasoning = body["output"][0]
    assert reasoning["type"] == "reasoning"
    # Codex sends it back without the text.
    sent: Any = [{"type": "reasoning", "summary": [], "encrypted_content": reasoning["encrypted_content"]},
                 {"role": "assistant", "content": "Hi"}]  # fmt: skip
    assert items_to_messages(sent) == [{"role": "assistant", "content": "Hi", "reasoning_content": "Hm, hm."}]
    foreign: Any = [{"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABo"}]
    assert items_to_messages(foreign) == []
