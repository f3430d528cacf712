"""The typed events that the stream helpers of the openai package make of our streams."""

from __future__ import annotations

from typing import Any, Literal

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from pydantic import BaseModel

from tests.support.langchain_chat import MODEL

QUESTION: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "What is the weather like?"}]


class Weather(BaseModel):
    """The type that an answer is parsed into."""

    kind: Literal["rain", "snow"]
    warm: bool


def test_chat_stream_helper_gets_content_deltas_and_the_finish_reason(client: OpenAI) -> None:
    options: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 60, "temperature": 0, "stop": ["e"]}
    with client.chat.completions.stream(**options, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    (done,) = [event for event in events if event.type == "content.done"]
    deltas = [event for event in events if event.type == "content.delta"]
    assert "".join(event.delta for event in deltas) == done.content == deltas[-1].snapshot
    assert done.content == final.choices[0].message.content
    assert final.usage is not None
    assert final.usage.completion_tokens < 60
    assert final.choices[0].finish_reason == "stop"


def test_chat_stream_helper_gets_parsed_content_and_log_probabilities(client: OpenAI) -> None:
    options: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 48, "temperature": 0, "logprobs": True}
    with client.chat.completions.stream(response_format=Weather, **options) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    (done,) = [event for event in events if event.type == "content.done"]
    assert isinstance(done.parsed, Weather)
    assert final.choices[0].message.parsed == done.parsed
    assert any(event.type == "logprobs.content.delta" for event in events)
    (logprobs,) = [event for event in events if event.type == "logprobs.content.done"]
    # llama.cpp removes a code fence around JSON from the text, but keeps one token of it in the log probabilities.
    assert "".join(each.token for each in logprobs.content).endswith(done.content)


def test_chat_stream_helper_gets_tool_call_arguments_delta_by_delta(client: OpenAI) -> None:
    options: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 64, "temperature": 0, "tool_choice": "required"}
    with client.chat.completions.stream(tools=[openai.pydantic_function_tool(Weather)], **options) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    (done,) = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    deltas = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    assert "".join(event.arguments_delta for event in deltas) == done.arguments
    assert isinstance(done.parsed_arguments, Weather)
    (call,) = final.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == done.parsed_arguments
    assert final.choices[0].finish_reason == "tool_calls"


def test_response_stream_helper_gets_every_event_in_order(client: OpenAI) -> None:
    options: Any = {"model": MODEL, "input": "The weather?", "max_output_tokens": 64, "temperature": 0}
    with client.responses.stream(text_format=Weather, **options) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert done.parsed == final.output_parsed
    assert isinstance(final.output_parsed, Weather)
    assert client.responses.retrieve(final.id).output_text == final.output_text


def test_response_stream_is_resumed_after_the_last_received_event(client: OpenAI) -> None:
    options: Any = {"model": MODEL, "input": "The weather?", "max_output_tokens": 64, "temperature": 0}
    with client.responses.stream(background=True, text_format=Weather, **options) as stream:
        first = next(iter(stream))
    assert first.type == "response.created"
    left: Any = {"response_id": first.response.id, "starting_after": first.sequence_number}
    with client.responses.stream(text_format=Weather, **left) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert events[0].sequence_number == first.sequence_number + 1
    assert isinstance(final.output_parsed, Weather)
