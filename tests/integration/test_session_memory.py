"""Requests that ask for their session's history, through the openai package, on the real engine."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletion
from sqlalchemy import create_engine

from mistral_api.delivery.writer import BatchInserter
from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.exchanges import an_exchange, answered, said
from tests.support.openai_schemas import valid
from tests.support.processes import Server, api_alone, data_folder
from tests.support.response_shapes import assert_error_shape

SYSTEM = {"role": "system", "content": "You remember everything that the user tells you, and you answer in few words."}
FACT = "My name is Rumpelstiltskin, I live in a tower by the sea, and I spin straw into gold every night."

Messages = list[Any]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _ask(client: OpenAI, messages: Messages, session_id: str, tokens: int = 4, **ours: Any) -> ChatCompletion:
    return client.chat.completions.create(
        model=client.models.list().data[0].id, messages=messages, max_tokens=tokens, temperature=0,
        extra_body={"session_id": session_id, "ignore_eos": True, **ours},
    )  # fmt: skip


def _said(answer: ChatCompletion) -> dict[str, Any]:
    return {"role": "assistant", "content": answer.choices[0].message.content}


def _tokens(server: Server, messages: Messages) -> int:
    url = f"{server.model_url}/v1/chat/completions/input_tokens"
    return int(requests.post(url, json={"messages": messages}, timeout=10).json()["input_tokens"])


def _store(server: Server, session_id: str, text: str) -> None:
    """A turn that was answered, without the time that reading it takes a model."""
    engine = create_engine(start_embedded_postgres(server.data_dir).url)
    BatchInserter(engine).insert([an_exchange(session_id, messages=said(text), answers=answered("Yes."))])
    engine.dispose()


@pytest.mark.parametrize("prompt", [["The sea is", "The sky is"], [504, 2914]], ids=["texts", "tokens"])
def test_a_chat_goes_on_after_prompts_that_are_no_text(
    server: Server, client: OpenAI, session_id: str, prompt: Any
) -> None:
    made = {"prompt": prompt, "max_tokens": 2, "session_id": session_id}
    assert requests.post(f"{server.url}/v1/completions", json=made, timeout=60).status_code == 200
    answer = _ask(client, [_user("And the river?")], session_id, use_history=True)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > _tokens(server, [_user("And the river?")])


def _counts(answer: ChatCompletion) -> tuple[int, int]:
    """Tokens of the prompt, and how many of them were still in the cache."""
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens or 0


def _stored(server: Server, session_id: str) -> list[tuple[str, str]]:
    read = requests.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    return [(message["role"], message["content"]) for message in read["messages"]]


@pytest.mark.parametrize("stream", [False, True])
def test_the_second_request_knows_the_first_and_reuses_its_cache(
    server: Server, client: OpenAI, session_id: str, stream: bool
) -> None:
    opening = [SYSTEM, _user(f"{FACT} {stream}")]
    first = _ask(client, opening, session_id, use_history=True)
    chat = [*opening, _said(first), _user("What is my name?")]
    if stream:
        asked: Messages = chat[-1:]
        events = client.chat.completions.create(
            model=first.model, messages=asked, max_tokens=4, temperature=0, stream=True,
            stream_options={"include_usage": True}, extra_body={"session_id": session_id, "use_history": True},
        )  # fmt: skip
        usage = list(events)[-1].usage
        assert usage is not None
        assert usage.prompt_tokens == _tokens(server, chat)
    else:
        second = _ask(client, chat[-1:], session_id, use_history=True)
        prompt, cached = _counts(second)
        assert prompt == _tokens(server, chat)
        assert cached > _counts(first)[0]
        assert valid(ChatCompletion, second.to_dict()) == second
        third = _ask(client, [_user("And where do I live?")], session_id)
        assert _counts(third)[0] == _tokens(server, [_user("And where do I live?")])
    roles = [role for role, _ in _stored(server, session_id)]
    assert roles == ["system", *["user", "assistant"] * (2 if stream else 3)]
    assert _stored(server, session_id)[: len(chat)] == [(each["role"], each["content"]) for each in chat]


def test_a_client_that_sends_its_history_too_doubles_nothing(server: Server, client: OpenAI, session_id: str) -> None:
    chat: Messages = [SYSTEM]
    for turn in range(3):
        chat.append(_user(f"question {turn}"))
        answer = _ask(client, chat, session_id, use_history=True)
        assert _counts(answer)[0] == _tokens(server, chat)
        chat.append(_said(answer))
    older = [*chat[:3], _user("another question")]
    answer = _ask(client, older, session_id, use_history=True)
    assert _counts(answer)[0] == _tokens(server, older)
    assert _stored(server, session_id)[:4] == [(each["role"], each["content"]) for each in older]
    # The branch that was left can be taken up again.
    answer = _ask(client, [*chat, _user("back")], session_id, use_history=True)
    assert _counts(answer)[0] == _tokens(server, [*chat, _user("back")])
    assert _stored(server, session_id)[:-2] == [(each["role"], each["content"]) for each in chat]


def test_a_sent_system_message_replaces_the_stored_one(server: Server, client: OpenAI, session_id: str) -> None:
    first = _ask(client, [SYSTEM, _user("Hello")], session_id)
    other = {"role": "system", "content": "Be rude."}
    second = _ask(client, [other, _user("Well?")], session_id, use_history=True)
    chat = [other, _user("Hello"), _said(first), _user("Well?")]
    assert _counts(second)[0] == _tokens(server, chat)
    third = _ask(client, [_user("So?")], session_id, use_history=True)
    assert _counts(third)[0] == _tokens(server, [*chat, _said(second), _user("So?")])


def test_a_history_that_does_not_fit_is_refused_unless_it_may_be_shortened(
    server: Server, client: OpenAI, session_id: str
) -> None:
    long = "one two three four five six seven eight nine ten. " * 100
    for text in (long, long, "Hi"):
        _store(server, session_id, text)
    for truncation in (None, "disabled"):
        with pytest.raises(BadRequestError) as refused:
            _ask(client, [_user("Well?")], session_id, use_history=True, truncation=truncation)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    # The answer may take 1000 tokens, and the grammar has it end at the first.
    ours = {"use_history": True, "truncation": "auto", "grammar": 'root ::= "x"', "ignore_eos": False}
    shortened = _ask(client, [_user("Well?")], session_id, tokens=1000, **ours)
    kept = [_user("Hi"), {"role": "assistant", "content": "Yes."}, _user("Well?")]
    assert _counts(shortened)[0] == _tokens(server, kept)
    texts = [content for _, content in _stored(server, session_id)]
    assert texts == [long, "Yes.", long, "Yes.", "Hi", "Yes.", "Well?", "x"]


def test_an_api_that_was_restarted_remembers_and_the_setting_makes_it_the_rule(
    server: Server, client: OpenAI, session_id: str
) -> None:
    opening = [SYSTEM, _user(FACT)]
    first = _ask(client, opening, session_id)
    chat = [*opening, _said(first), _user("What is my name?")]
    settings = {
        "DATABASE_URL": start_embedded_postgres(server.data_dir).url,
        "MODEL_SERVER_PORT": str(server.model_port),
        "SESSION_HISTORY": "true",
    }
    with (
        data_folder() as data_dir,
        api_alone(data_dir, **settings) as restarted,
        OpenAI(base_url=f"{restarted.url}/v1", api_key="unused", max_retries=0) as other,
    ):
        second = _ask(other, chat[-1:], session_id)
        prompt, cached = _counts(second)
        assert prompt == _tokens(server, chat)
        assert cached > _counts(first)[0]
        unwanted = _ask(other, chat[-1:], session_id, use_history=False)
        assert _counts(unwanted)[0] == _tokens(server, chat[-1:])
        third = _ask(other, [_user("Sure?")], session_id)
        again = [*chat, _said(second), chat[-1], _said(unwanted), _user("Sure?")]
        assert _counts(third)[0] == _tokens(server, again)


def test_without_stored_text_there_is_nothing_to_remember(server: Server) -> None:
    settings = {
        "DATABASE_URL": start_embedded_postgres(server.data_dir).url,
        "MODEL_SERVER_PORT": str(server.model_port),
        "STORE_CONTENT": "false",
    }
    with data_folder() as data_dir, api_alone(data_dir, **settings) as forgetful:
        body = {"messages": [_user("Hi")], "max_tokens": 1, "session_id": "any", "use_history": True}
        answer = requests.post(f"{forgetful.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400
    assert_error_shape(answer.json(), code="not_supported", param="use_history")
