"""Messages, events and errors in Anthropic's form, checked against the types of the ``anthropic`` package."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from pydantic import TypeAdapter

from mistral_api.errors import ApiError, Forbidden, InvalidRequest, ModelLoading, ModelTimeout, NotFound
from mistral_api.generation.anthropic_renderer import AnthropicRenderer, anthropic_error, anthropic_message
from mistral_api.payload_types.completions import Completion, Usage
from mistral_api.upstream.sse import StreamEvent, encode_event
from mistral_api.upstream.transcript import Transcript
from tests.support.openai_schemas import validate

USAGE: Usage = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 6}}


def _body(finish: str, **message: Any) -> Completion:
    choice: Any = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": USAGE}


def test_anthropic_message_has_thinking_text_and_tool_use_blocks() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "cut", "arguments": '{"x": '}},
    ]
    body = _body("tool_calls", content="So.", reasoning_content="Hm.", tool_calls=calls)
    message = validate(Message, anthropic_message(body, "asked"))
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.input for block in message.content if block.type == "tool_use"] == [{"x": 1}, {}]
    assert (message.id, message.model, message.stop_reason) == ("msg_1", "asked", "tool_use")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (4, 6)


def test_forced_tool_call_has_the_stop_reason_tool_use() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert anthropic_message(_body("stop", tool_calls=[call]), "m")["stop_reason"] == "tool_use"
    assert anthropic_message(_body("length", tool_calls=[call]), "m")["stop_reason"] == "max_tokens"
    events = _events({"tool_calls": [call]}, finish="stop")
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_completion_without_choices_is_an_empty_anthropic_message() -> None:
    assert validate(Message, anthropic_message({"choices": []}, "m")).content == []


@pytest.mark.parametrize(
    ("finish", "word", "reason", "sequence"),
    [
        ("stop", None, "end_turn", None),
        ("stop", "", "end_turn", None),
        ("stop", "END", "stop_sequence", "END"),
        ("length", "", "max_tokens", None),
        ("content_filter", None, "refusal", None),
    ],
)
def test_finish_reason_becomes_the_anthropic_stop_reason(
    finish: str, word: str | None, reason: str, sequence: str | None
) -> None:
    message = validate(Message, anthropic_message(_body(finish, content="a"), None, stop_sequence=word))
    assert (message.stop_reason, message.stop_sequence, message.model) == (reason, sequence, "m")


def _events(*deltas: dict[str, Any], finish: str | None = None, error: ApiError | None = None) -> list[Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish} for delta in deltas]
    chunks = [{"id": "chatcmpl-1", "choices": [choice]} for choice in choices]
    renderer = AnthropicRenderer(Transcript(), {"model": "m"}, "sess_1")
    content = b"".join(renderer.event(StreamEvent(encode_event(chunk))) for chunk in chunks)
    content += renderer.closing() if error is None else renderer.failure(error)
    found = []
    for event in content.strip().split(b"\n\n"):
        name, data = event.split(b"\n")
        found.append(orjson.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


def test_anthropic_stream_blocks_open_and_close_in_order() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"x"'}}
    events = _events(
        {"role": "assistant", "content": None},
        {"reasoning_content": "Hm"},
        {"reasoning_content": "."},
        {"content": "So."},
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
    )
    for event in events:
        TypeAdapter(RawMessageStreamEvent).validate_json(orjson.dumps(event), strict=True)
    assert [(event["type"].removeprefix("content_block_"), event.get("index")) for event in events] == [
        ("message_start", None),
        ("start", 0), ("delta", 0), ("delta", 0), ("stop", 0),
        ("start", 1), ("delta", 1), ("stop", 1),
        ("start", 2), ("delta", 2), ("delta", 2), ("stop", 2),
        ("message_delta", None), ("message_stop", None),
    ]  # fmt: skip


def test_anthropic_stream_without_content_is_still_a_message() -> None:
    assert [event["type"] for event in _events()] == ["message_start", "message_delta", "message_stop"]


def test_failed_anthropic_stream_ends_with_an_error_event() -> None:
    events = _events({"content": "One"}, error=ModelTimeout("Too slow."))
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "error",
    ]
    assert validate(ErrorResponse, events[-1]).error.message == "Too slow."
    assert events[-1]["error"]["type"] == "timeout_error"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("a"), "invalid_request_error"),
        (NotFound("a"), "not_found_error"),
        (Forbidden("a"), "permission_error"),
        (ModelLoading("a"), "overloaded_error"),
        (ModelTimeout("a"), "timeout_error"),
        (ApiError("a"), "api_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ApiError) else value,
)
def test_anthropic_error_has_its_type_and_all_four_keys(error: ApiError, kind: str) -> None:
    body = anthropic_error(error, error.status)
    assert validate(ErrorResponse, body).error.type == kind
    assert sorted(body["error"]) == ["code", "message", "param", "type"]
