"""Clients that know nothing of sessions: each keeps its history in its own way, and each dialogue is stored once."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import requests
from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, SQLiteSession, set_tracing_disabled
from anthropic import Anthropic
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic import SecretStr

from tests.support.langchain_chat import MODEL
from tests.support.openai_clients import async_openai_client
from tests.support.processes import Server, wait_for

# Many programs use what langchain-core warns of.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")


@pytest.fixture
def word() -> str:
    """A word that no other conversation of the server has, not even inside of a longer one."""
    return uuid4().hex


def conversations_about(server: Server, word: str) -> list[dict[str, Any]]:
    """Return the conversations with a word in them."""
    listed = requests.get(f"{server.url}/v1/conversations", params={"q": word}, timeout=10).json()
    found: list[dict[str, Any]] = listed["data"]
    return found


def assert_stored_once(server: Server, word: str, messages: int) -> None:
    """There is one conversation with this word, and it has so many messages."""
    counts = wait_for(
        lambda: [each["message_count"] for each in conversations_about(server, word) if each["message_count"]],
        "a conversation",
    )
    wait_for(
        lambda: [each["message_count"] for each in conversations_about(server, word)] == [messages],
        f"one conversation of {messages} messages, not {counts}",
    )


def test_langchains_message_history(server: Server, http_clients: dict[str, Any], word: str) -> None:
    settings: dict[str, Any] = {"max_tokens": 12, "temperature": 0, **http_clients}
    model = ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key=SecretStr("unused"), **settings)
    memory = InMemoryChatMessageHistory()
    chain = RunnableWithMessageHistory(model, lambda _session: memory)
    for text in [f"Name a fruit of {word}.", "Another fruit.", "A third.", "Thanks."]:
        chain.invoke(text, config={"configurable": {"session_id": "of langchain alone"}})
    assert len(memory.messages) == 8
    assert_stored_once(server, word, 8)


def test_an_anthropic_client_whose_system_blocks_change(server: Server, word: str) -> None:
    messages: list[Any] = []
    with Anthropic(base_url=server.url, api_key="unused", max_retries=0, timeout=60) as client:
        for turn, text in enumerate([f"Name a bird of {word}.", "Another bird.", "A third.", "Thanks."]):
            messages.append({"role": "user", "content": [{"type": "text", "text": text}]})
            system: list[Any] = [
                {"type": "text", "text": f"It is {turn}:00."},
                {"type": "text", "text": "Answer briefly.", "cache_control": {"type": "ephemeral"}},
            ]
            answer = client.messages.create(
                model=MODEL, max_tokens=12, system=system, messages=messages, extra_body={"temperature": 0}
            )
            messages.append({"role": "assistant", "content": [block.model_dump() for block in answer.content]})
    # The system text of the first turn is a message; the later ones are kept with their turns.
    assert_stored_once(server, word, 9)


def test_responses_with_and_without_a_previous_response_on_one_conversation(
    server: Server, client: OpenAI, word: str
) -> None:
    history: list[Any] = [{"role": "user", "content": f"Name a fish of {word}."}]
    first = client.responses.create(model=MODEL, input=history, max_output_tokens=16, temperature=0)
    history += [*first.output, {"role": "user", "content": "Another fish."}]
    second = client.responses.create(model=MODEL, input=history, max_output_tokens=16, temperature=0)
    third = client.responses.create(
        model=MODEL, input="A third.", previous_response_id=second.id, max_output_tokens=16, temperature=0
    )
    history += [*second.output, {"role": "user", "content": "A third."}, *third.output]
    history.append({"role": "user", "content": "Thanks."})
    fourth = client.responses.create(model=MODEL, input=history, max_output_tokens=16, temperature=0)
    sessions = {each.model_dump()["session_id"] for each in (first, second, third, fourth)}
    assert len(sessions) == 1
    assert_stored_once(server, word, 8)
    items = requests.get(f"{server.url}/v1/conversations/{sessions.pop()}/items?order=asc", timeout=10).json()["data"]
    listed = [item.id for item in client.responses.input_items.list(fourth.id, order="asc")]
    assert listed == [item["id"] for item in items][:7]


async def test_openai_agents_with_a_session_of_their_own(server: Server, word: str) -> None:
    set_tracing_disabled(True)
    session = SQLiteSession("of the agents alone")
    async with async_openai_client(server) as client:
        model = OpenAIResponsesModel(model=MODEL, openai_client=client)
        agent = Agent(
            name="Short",
            instructions="Answer briefly.",
            model=model,
            # The package refuses an answer that did not come to its end.
            model_settings=ModelSettings(extra_body={"grammar": 'root ::= "Oak." | "Elm." | "Fir."'}),
        )
        for text in [f"Name a tree of {word}.", "Another tree.", "A third."]:
            await Runner.run(agent, text, session=session)
    session.close()
    assert_stored_once(server, word, 6)
