"""OpenAI's agents SDK: runs that continue a conversation or a previous response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.support.langchain_chat import MODEL
from tests.support.openai_clients import async_openai_client
from tests.support.processes import Server

# No trace may be sent to OpenAI.
LOCAL = RunConfig(tracing_disabled=True)


class Forecast(BaseModel):
    """A structured output, which always comes to its end; the SDK accepts only complete ones."""

    kind: Literal["rain", "snow"]


@function_tool
def weather(city: Literal["Zürich", "東京"]) -> str:
    """Tells the weather of a city."""
    return f"{city}: rain"


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncOpenAI]:
    """The async client of the openai package."""
    async with async_openai_client(server) as made:
        yield made


def _agent(client: AsyncOpenAI, **settings: Any) -> Agent:
    return Agent(
        name="Forecaster",
        instructions="Be brief.",
        model=OpenAIResponsesModel(MODEL, client),
        model_settings=ModelSettings(temperature=0, max_tokens=64, **settings),
        tools=[weather],
        output_type=Forecast,
    )


async def test_agents_sdk_session_is_stored_as_a_conversation(client: AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    called = _agent(client, tool_choice="required")
    first = await Runner.run(called, "What is the weather like?", session=session, run_config=LOCAL)
    second = await Runner.run(_agent(client), "And tomorrow?", session=session, run_config=LOCAL)
    assert isinstance(first.final_output, Forecast)
    assert isinstance(second.final_output, Forecast)
    kept = [item async for item in client.conversations.items.list(await session._get_session_id(), order="asc")]
    kinds = [item.type for item in kept]
    assert kinds == ["message", "function_call", "function_call_output", "message", "message", "message"]
    assert kept[2].model_dump()["output"] in ("Zürich: rain", "東京: rain")
    first_tokens = first.raw_responses[-1].usage.input_tokens
    assert second.raw_responses[0].usage.input_tokens > first_tokens
    await session.clear_session()


async def test_agents_sdk_run_continues_from_previous_response_id(client: AsyncOpenAI) -> None:
    first = await Runner.run(_agent(client), "word " * 100, run_config=LOCAL)
    stream = Runner.run_streamed(
        _agent(client), "And then?", previous_response_id=first.last_response_id, run_config=LOCAL
    )
    told = [event.type async for event in stream.stream_events()]
    assert "raw_response_event" in told
    assert stream.last_response_id != first.last_response_id
    assert isinstance(stream.final_output, Forecast)
    (usage,) = [response.usage for response in stream.raw_responses]
    assert usage.input_tokens > 100 + first.raw_responses[0].usage.output_tokens
    assert usage.input_tokens_details.cached_tokens > 100
