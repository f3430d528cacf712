"""The openai package against the running server, with its own types and exceptions."""

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from openai.types.shared_params import FunctionDefinition

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello!"}]


def test_openai_client_gets_a_chat_completion_with_usage(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, temperature=0)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_openai_client_streams_a_chat_completion_with_usage(client: OpenAI, model: str) -> None:
    stream = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_openai_client_gets_completions_whole_and_streamed(client: OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="The capital of France is", max_tokens=4, temperature=0)
    assert answer.choices[0].text
    streamed = client.completions.create(model=model, prompt="Once", max_tokens=4, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed)


def test_openai_client_retrieves_the_model_with_context_window_and_state(client: OpenAI, model: str) -> None:
    found = client.models.retrieve(model)
    assert found.id == model
    assert found.object == "model"
    extra = found.model_extra or {}
    assert extra["context_window"] == 2048
    assert extra["state"] == "ready"


def test_openai_client_gets_an_answer_to_a_request_with_tools(client: OpenAI, model: str) -> None:
    function: FunctionDefinition = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        max_tokens=40,
        tools=[{"type": "function", "function": function}],
    )
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")


def test_openai_client_raises_bad_request_error_naming_the_field(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=HELLO, temperature=7)
    assert (refused.value.code, refused.value.param) == ("decimal_above_max_value", "temperature")
    assert refused.value.type == "invalid_request_error"


def test_openai_client_raises_not_found_error_for_an_unknown_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_openai_client_raises_before_the_stream_of_a_bad_request(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=[], stream=True)


def test_openai_client_raises_context_length_exceeded_for_an_overlong_prompt(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens") as refused:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "word " * 3000}])
    assert refused.value.code == "context_length_exceeded"
