"""Requests that use their session's history, through the openai package, on the real engine."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletion
from sqlalchemy import create_engine

from mistral_api.database.search_path import use_schema
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.conversations import user
from tests.support.error_shape import assert_error_shape
from tests.support.exchanges import make_exchange, question, reply
from tests.support.openai_clients import openai_client
from tests.support.openai_schemas import validate
from tests.support.processes import SCHEMA, Server, running_api, temporary_data_dir

SYSTEM = {"role": "system", "content": "You remember everything that the user tells you, and you answer in few words."}
FACT = "My name is Rumpelstiltskin, I live in a tower by the sea, and I spin straw into gold every night."

Messages = list[Any]


def _ask(client: OpenAI, messages: Messages, session_id: str, tokens: int = 4, **ours: Any) -> ChatCompletion:
    return client.chat.completions.create(
        model=client.models.list().data[0].id, messages=messages, max_tokens=tokens, temperature=0,
        extra_body={"session_id": session_id, "ignore_eos": True, **ours},
    )  # fmt: skip


def _assistant_message(answer: ChatCompletion) -> dict[str, Any]:
    return {"role": "assistant", "content": answer.choices[0].message.content}


def _store_turn(server: Server, session_id: str, text: str) -> None:
    """Store an answered turn without the time that the model takes to read it."""
    engine = create_engine(start_embedded_postgres(server.data_dir).url)
    use_schema(engine, SCHEMA)
    BatchInserter(engine).insert([make_exchange(session_id, messages=question(text), answers=reply("Yes."))])
    engine.dispose()


@pytest.mark.parametrize("prompt", [["The sea is", "The sky is"], [504, 2914]], ids=["texts", "tokens"])
def test_chat_with_history_continues_after_non_text_prompts(
    server: Server, client: OpenAI, session_id: str, prompt: Any
) -> None:
    made = {"prompt": prompt, "max_tokens": 2, "session_id": session_id}
    assert requests.post(f"{server.url}/v1/completions", json=made, timeout=60).status_code == 200
    answer = _ask(client, [user("And the river?")], session_id, use_history=True)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > server.count_tokens([user("And the river?")])


def _prompt_and_cached_tokens(answer: ChatCompletion) -> tuple[int, int]:
    """Return the number of prompt tokens, and how many of them were cached."""
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens or 0


def _stored_messages(server: Server, session_id: str) -> list[tuple[str, str]]:
    read = requests.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    return [(message["role"], message["content"]) for message in read["messages"]]


@pytest.mark.parametrize("stream", [False, True])
def test_second_request_with_history_knows_the_first_and_reuses_its_cache(
    server: Server, client: OpenAI, session_id: str, stream: bool
) -> None:
    opening = [SYSTEM, user(f"{FACT} {stream}")]
    first = _ask(client, opening, session_id, use_history=True)
    chat = [*opening, _assistant_message(first), user("What is my name?")]
    if stream:
        asked: Messages = chat[-1:]
        events = client.chat.completions.create(
            model=first.model, messages=asked, max_tokens=4, temperature=0, stream=True,
            stream_options={"include_usage": True}, extra_body={"session_id": session_id, "use_history": True},
        )  # fmt: skip
        usage = list(events)[-1].usage
        assert usage is not None
        assert usage.prompt_tokens == server.count_tokens(chat)
    else:
        second = _ask(client, chat[-1:], session_id, use_history=True)
        prompt, cached = _prompt_and_cached_tokens(second)
        assert prompt == server.count_tokens(chat)
        assert cached > _prompt_and_cached_tokens(first)[0]
        assert validate(ChatCompletion, second.to_dict()) == second
        third = _ask(client, [user("And where do I live?")], session_id)
        assert _prompt_and_cached_tokens(third)[0] == server.count_tokens([user("And where do I live?")])
    roles = [role for role, _ in _stored_messages(server, session_id)]
    assert roles == ["system", *["user", "assistant"] * (2 if stream else 3)]
    assert _stored_messages(server, session_id)[: len(chat)] == [(each["role"], each["content"]) for each in chat]


def test_history_sent_by_the_client_is_not_duplicated(server: Server, client: OpenAI, session_id: str) -> None:
    chat: Messages = [SYSTEM]
    for turn in range(3):
        chat.append(user(f"question {turn}"))
        answer = _ask(client, chat, session_id, use_history=True)
        assert _prompt_and_cached_tokens(answer)[0] == server.count_tokens(chat)
        chat.append(_assistant_message(answer))
    older = [*chat[:3], user("another question")]
    answer = _ask(client, older, session_id, use_history=True)
    assert _prompt_and_cached_tokens(answer)[0] == server.count_tokens(older)
    assert _stored_messages(server, session_id)[:4] == [(each["role"], each["content"]) for each in older]
    # The abandoned branch can be continued.
    answer = _ask(client, [*chat, user("back")], session_id, use_history=True)
    assert _prompt_and_cached_tokens(answer)[0] == server.count_tokens([*chat, user("back")])
    assert _stored_messages(server, session_id)[:-2] == [(each["role"], each["content"]) for each in chat]


@pytest.mark.parametrize("use_history", [False, True])
def test_history_that_comes_back_spoiled_doubles_nothing(
    server: Server, client: OpenAI, session_id: str, use_history: bool
) -> None:
    chat: Messages = []
    for turn in range(5):
        chat.append(user(f"question {turn}\r\n"))
        sent = [{"role": "system", "content": f"It is {turn}:00."}, *chat]
        answer = _ask(client, sent, session_id, use_history=use_history)
        assert _prompt_and_cached_tokens(answer)[0] == server.count_tokens(sent)
        text = answer.choices[0].message.content or ""
        chat.append({"role": "assistant", "content": [{"type": "text", "text": f"{text.strip()} \n"}]})
    stored = _stored_messages(server, session_id)
    assert [role for role, _ in stored] == ["system", *["user", "assistant"] * 5]


def test_new_system_message_replaces_the_stored_one(server: Server, client: OpenAI, session_id: str) -> None:
    first = _ask(client, [SYSTEM, user("Hello")], session_id)
    other = {"role": "system", "content": "Be rude."}
    second = _ask(client, [other, user("Well?")], session_id, use_history=True)
    chat = [other, user("Hello"), _assistant_message(first), user("Well?")]
    assert _prompt_and_cached_tokens(second)[0] == server.count_tokens(chat)
    third = _ask(client, [user("So?")], session_id, use_history=True)
    assert _prompt_and_cached_tokens(third)[0] == server.count_tokens([*chat, _assistant_message(second), user("So?")])


def test_overlong_history_is_refused_unless_truncation_is_auto(server: Server, client: OpenAI, session_id: str) -> None:
    long = "one two three four five six seven eight nine ten. " * 100
    for text in (long, long, "Hi"):
        _store_turn(server, session_id, text)
    for truncation in (None, "disabled"):
        with pytest.raises(BadRequestError) as refused:
            _ask(client, [user("Well?")], session_id, use_history=True, truncation=truncation)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    # The answer may take 1000 tokens; the grammar ends it at the first.
    ours = {"use_history": True, "truncation": "auto", "grammar": 'root ::= "x"', "ignore_eos": False}
    shortened = _ask(client, [user("Well?")], session_id, tokens=1000, **ours)
    kept = [user("Hi"), {"role": "assistant", "content": "Yes."}, user("Well?")]
    assert _prompt_and_cached_tokens(shortened)[0] == server.count_tokens(kept)
    texts = [content for _, content in _stored_messages(server, session_id)]
    assert texts == [long, "Yes.", long, "Yes.", "Hi", "Yes.", "Well?", "x"]


def test_history_is_read_after_a_restart_and_session_history_makes_it_the_default(
    server: Server, client: OpenAI, session_id: str
) -> None:
    opening = [SYSTEM, user(FACT)]
    first = _ask(client, opening, session_id)
    chat = [*opening, _assistant_message(first), user("What is my name?")]
    settings = {
        "DATABASE_URL": start_embedded_postgres(server.data_dir).url,
        **server.model_settings,
        "SESSION_HISTORY": "true",
    }
    with (
        temporary_data_dir() as data_dir,
        running_api(data_dir, **settings) as restarted,
        openai_client(restarted) as other,
    ):
        second = _ask(other, chat[-1:], session_id)
        prompt, cached = _prompt_and_cached_tokens(second)
        assert prompt == server.count_tokens(chat)
        assert cached > _prompt_and_cached_tokens(first)[0]
        unwanted = _ask(other, chat[-1:], session_id, use_history=False)
        assert _prompt_and_cached_tokens(unwanted)[0] == server.count_tokens(chat[-1:])
        third = _ask(other, [user("Sure?")], session_id)
        again = [*chat, _assistant_message(second), chat[-1], _assistant_message(unwanted), user("Sure?")]
        assert _prompt_and_cached_tokens(third)[0] == server.count_tokens(again)


def test_history_is_refused_when_content_is_not_stored(server: Server) -> None:
    settings = {
        "DATABASE_URL": start_embedded_postgres(server.data_dir).url,
        **server.model_settings,
        "STORE_CONTENT": "false",
    }
    with temporary_data_dir() as data_dir, running_api(data_dir, **settings) as forgetful:
        body = {"messages": [user("Hi")], "max_tokens": 1, "session_id": "any", "use_history": True}
        answer = requests.post(f"{forgetful.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400
    assert_error_shape(answer.json(), code="not_supported", param="use_history")
