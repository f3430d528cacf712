"""Tool calls and continued responses with langchain-openai, where no result depends on the model's ability."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI

from tests.support.langchain_chat import MODEL, join_chunks
from tests.support.processes import Server

# llama.cpp's grammars consist of bytes: letters beyond ASCII show that no byte is lost.
City = Literal["Zürich", "東京"]
WEATHER = "What is the weather like?"
APIS: dict[str, dict[str, Any]] = {
    "chat completions": {"stream_usage": True},
    "responses": {"use_responses_api": True},
    "responses, v1 content": {"use_responses_api": True, "output_version": "v1"},
}


@tool
def weather(city: City, days: Literal[3]) -> str:
    """Tells the weather of a city."""
    return f"{city}: rain for {days} days"


@pytest.fixture
def make_client(server: Server, http_clients: dict[str, Any]) -> Callable[..., ChatOpenAI]:
    """A function that makes a client of the running stack."""

    def made(**options: Any) -> ChatOpenAI:
        own: dict[str, Any] = {"model": MODEL, "base_url": f"{server.url}/v1", "api_key": "unused", "max_retries": 0}
        return ChatOpenAI(**own | http_clients | {"temperature": 0, "max_tokens": 48, "timeout": 60} | options)

    return made


def _assert_called(message: BaseMessage) -> None:
    assert isinstance(message, AIMessage)
    (call,) = message.tool_calls
    assert call["name"] == "weather"
    assert call["args"]["city"] in ("Zürich", "東京")
    assert call["args"]["days"] == 3
    assert call["id"]
    assert message.invalid_tool_calls == []
    (block,) = [block for block in message.content_blocks if block["type"] == "tool_call"]
    assert (block["name"], block["id"]) == ("weather", call["id"])


@pytest.mark.parametrize("api", APIS)
def test_langchain_tool_call_is_made_streamed_and_answered(make_client: Callable[..., ChatOpenAI], api: str) -> None:
    model = make_client(**APIS[api])
    tools: list[BaseTool] = [weather]
    calling = model.bind_tools(tools, tool_choice="any", strict=True)
    _assert_called(calling.invoke(WEATHER))
    called = join_chunks(calling.stream(WEATHER))
    _assert_called(called)
    told = weather.invoke(called.tool_calls[0])
    answer = model.bind_tools(tools).invoke([HumanMessage(WEATHER), called, told])
    assert answer.usage_metadata is not None
    assert called.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] > called.usage_metadata["input_tokens"]
    assert answer.text


@pytest.mark.parametrize("api", APIS)
async def test_langchain_tool_call_is_made_by_the_async_client(
    make_client: Callable[..., ChatOpenAI], api: str
) -> None:
    calling = make_client(**APIS[api]).bind_tools([weather], tool_choice="weather", strict=True)
    _assert_called(await calling.ainvoke(WEATHER))
    _assert_called(join_chunks([chunk async for chunk in calling.astream(WEATHER)]))


@pytest.mark.parametrize("stream", [False, True])
def test_langchain_sends_only_new_messages_after_a_previous_response_id(
    make_client: Callable[..., ChatOpenAI], stream: bool
) -> None:
    def ask(messages: list[BaseMessage]) -> AIMessage:
        return join_chunks(model.stream(messages)) if stream else model.invoke(messages)

    model = make_client(use_responses_api=True, use_previous_response_id=True, max_tokens=16)
    said: list[BaseMessage] = [HumanMessage("word " * 100)]
    for text in ("And then?", "And after that?"):
        said += [ask(said), HumanMessage(text)]
    sent = model._get_request_payload(said)
    assert sent["previous_response_id"] == said[-2].response_metadata["id"]
    assert len(sent["input"]) == 1
    usage = ask(said).usage_metadata
    assert usage is not None
    assert usage["input_tokens"] > 150
    # Everything but the last answer and question was in the model server's cache.
    assert usage["input_tokens"] - usage["input_token_details"]["cache_read"] < 40
