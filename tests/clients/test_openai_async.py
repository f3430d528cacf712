"""The async client of the openai package on every resource; each body is checked against its published type."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletionUserMessageParam
from openai.types.responses import Response, ResponseInputMessageItem
from pydantic import BaseModel

from tests.support.langchain_chat import MODEL
from tests.support.openai_clients import async_openai_client
from tests.support.processes import Server
from tests.support.recorded_responses import ResponseRecorder

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello!"}]
SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 16}
ENDLESS: dict[str, Any] = {"max_output_tokens": 1500, "extra_body": {"ignore_eos": True}}


class Weather(BaseModel):
    """The type that an answer is parsed into."""

    kind: Literal["rain", "snow"]
    warm: bool


@pytest.fixture
async def recorder() -> AsyncIterator[ResponseRecorder]:
    """The recorded responses; at the end of a test each must match its published type."""
    made = ResponseRecorder()
    yield made
    made.check()


@pytest.fixture
async def client(server: Server, recorder: ResponseRecorder) -> AsyncIterator[AsyncOpenAI]:
    """The async client of the openai package, whose responses are recorded."""
    connections = DefaultAsyncHttpxClient(event_hooks={"response": [recorder.record]})
    async with async_openai_client(server, http_client=connections) as made:
        yield made


async def test_async_client_lists_models_and_gets_completions_as_published(client: AsyncOpenAI) -> None:
    (model,) = [each async for each in client.models.list()]
    assert await client.models.retrieve(model.id) == model
    made = await client.completions.create(model=MODEL, prompt="One, two,", max_tokens=4, temperature=0)
    assert made.choices[0].text


async def test_async_client_gets_chat_completions_as_published(client: AsyncOpenAI) -> None:
    made = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8, temperature=0)
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == made.choices[0].message.content
    assert made.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == made.usage.completion_tokens


async def test_async_client_reads_and_changes_stored_completions_as_published(client: AsyncOpenAI) -> None:
    run = {"run": uuid4().hex}
    ids = []
    for _ in range(3):
        made = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1, store=True, metadata=run)
        ids.append(made.id)
    listed = [each.id async for each in client.chat.completions.list(metadata=run, limit=2)]
    assert listed == ids
    changed = await client.chat.completions.update(ids[0], metadata={"run": "other"})
    assert changed.model_dump()["metadata"] == {"run": "other"}
    messages = [each.content async for each in client.chat.completions.messages.list(ids[0])]
    assert messages == ["Hello!"]
    assert (await client.chat.completions.delete(ids[0])).deleted
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.retrieve(ids[0])
    assert (await client.chat.completions.retrieve(ids[1])).id == ids[1]


async def test_async_client_creates_continues_counts_and_deletes_responses(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model=MODEL, input="Hello!", **SHORT)
    assert (await client.responses.retrieve(made.id)).output_text == made.output_text
    items = [each async for each in client.responses.input_items.list(made.id, limit=1)]
    assert isinstance(items[0], ResponseInputMessageItem)
    more: Any = {"input": "And?", "previous_response_id": made.id}
    counted = await client.responses.input_tokens.count(model=MODEL, **more)
    child = await client.responses.create(model=MODEL, **more, **SHORT)
    assert child.usage is not None
    assert counted.input_tokens == child.usage.input_tokens
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


async def test_async_client_parses_a_response_whole_and_streamed(client: AsyncOpenAI) -> None:
    options: Any = {"model": MODEL, "input": "The weather?", "text_format": Weather, "max_output_tokens": 64}
    parsed = await client.responses.parse(temperature=0, **options)
    assert isinstance(parsed.output_parsed, Weather)
    async with client.responses.stream(temperature=0, **options) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert final.output_parsed == parsed.output_parsed
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"


async def test_async_client_polls_streams_and_cancels_a_background_response(client: AsyncOpenAI) -> None:
    queued = await client.responses.create(model=MODEL, input="Count.", background=True, **SHORT)
    assert queued.background
    followed = [event async for event in await client.responses.retrieve(queued.id, stream=True)]
    assert [event.sequence_number for event in followed] == list(range(len(followed)))
    done = await client.responses.retrieve(queued.id)
    assert followed[-1].type == f"response.{done.status}"
    assert done.output_text
    endless = await client.responses.create(model=MODEL, input="Count.", background=True, **ENDLESS)
    assert (await client.responses.cancel(endless.id)).status == "cancelled"
    assert (await client.responses.retrieve(endless.id)).status == "cancelled"


async def test_async_client_gets_a_function_call_and_sends_its_output(client: AsyncOpenAI) -> None:
    tool = openai.pydantic_function_tool(Weather)
    options: Any = {"model": MODEL, "input": "Weather?", "tools": [tool], "max_output_tokens": 64, "temperature": 0}
    async with client.responses.stream(tool_choice="required", **options) as stream:
        deltas = [event.delta async for event in stream if event.type == "response.function_call_arguments.delta"]
        called = await stream.get_final_response()
    (call,) = called.output
    assert call.type == "function_call"
    assert "".join(deltas) == call.arguments
    assert isinstance(call.parsed_arguments, Weather)
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "It rains."}
    answered = await client.responses.create(model=MODEL, input=[output], previous_response_id=called.id, **SHORT)
    assert isinstance(answered, Response)
    assert answered.output_text
