"""Clients that name no session and send their whole history: each dialogue is one conversation, each message once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from openai import OpenAI

from tests.support.databases import temporary_database
from tests.support.openai_clients import openai_client
from tests.support.processes import Server, running_api, wait_for


def served_model(client: OpenAI) -> str:
    return client.models.list().data[0].id


@dataclass
class Loop:
    """A client that keeps its history in a list, as every example of the openai package does."""

    client: OpenAI
    messages: list[Any] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)

    def ask(self, text: str, **options: Any) -> str:
        """Ask with the whole history, and return the answer."""
        self.messages.append({"role": "user", "content": text})
        raw = self.client.chat.completions.with_raw_response.create(
            model=served_model(self.client), messages=self.messages, max_completion_tokens=12, temperature=0, **options
        )
        self.sessions.append(raw.headers["X-Session-Id"])
        answer = raw.parse().choices[0].message.content or ""
        self.messages.append({"role": "assistant", "content": answer})
        return answer

    @property
    def session(self) -> str:
        """The only session of all requests."""
        assert len(set(self.sessions)) == 1, self.sessions
        return self.sessions[0]


def texts_of(server: Server, session_id: str) -> list[Any]:
    return [message["content"] for message in server.stored_messages(session_id)]


def assert_stored_once(server: Server, loop: Loop) -> None:
    """The conversation has just the client's history; the server may know of what its client trimmed."""

    def is_stored() -> bool:
        stored = texts_of(server, loop.session)
        return [str(text).strip() for text in stored] == [str(each["content"]).strip() for each in loop.messages]

    wait_for(is_stored, f"one conversation: {loop.messages} is {texts_of(server, loop.session)}")


def test_a_loop_of_four_turns_is_one_conversation_of_eight_messages(server: Server, client: OpenAI) -> None:
    loop = Loop(client)
    for question in ["Name a colour of the loop test.", "Another one.", "And a third.", "Thanks!"]:
        loop.ask(question)
    assert_stored_once(server, loop)
    found = requests.get(f"{server.url}/v1/conversations", params={"q": "loop test"}, timeout=10).json()
    assert [each["message_count"] for each in found["data"]] == [8]


def test_the_session_is_in_the_body_too(client: OpenAI) -> None:
    loop = Loop(client)
    loop.ask("Where is the session?")
    raw = client.chat.completions.with_raw_response.create(
        model=served_model(client),
        messages=[*loop.messages, {"role": "user", "content": "There?"}],
        max_completion_tokens=2,
    )
    assert raw.http_response.json()["session_id"] == raw.headers["X-Session-Id"] == loop.session


def test_a_streaming_client_is_recognised(server: Server, client: OpenAI) -> None:
    messages: list[Any] = []
    sessions = set()
    for question in ["Stream this.", "Stream that."]:
        messages.append({"role": "user", "content": question})
        raw = client.chat.completions.with_raw_response.create(
            model=served_model(client), messages=messages, max_completion_tokens=8, temperature=0, stream=True
        )
        sessions.add(raw.headers["X-Session-Id"])
        pieces = [chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices]
        messages.append({"role": "assistant", "content": "".join(pieces)})
    assert len(sessions) == 1


def test_two_dialogues_at_once_with_the_same_beginning_stay_apart(server: Server) -> None:
    with openai_client(server) as first, openai_client(server) as second, ThreadPoolExecutor(2) as pool:
        loops = [Loop(first), Loop(second)]
        for number in range(3):
            asked = [pool.submit(loop.ask, "Hello twin!" if not number else f"Go on, {number}.") for loop in loops]
            for each in asked:
                each.result(timeout=120)
    assert len({tuple(loop.sessions[-1:]) for loop in loops}) == 2
    sessions = {session for loop in loops for session in loop.sessions}
    assert len(sessions) == 2
    for loop in loops:
        assert len(server.stored_messages(loop.sessions[-1])) == 6


def test_a_session_id_comes_before_everything(client: OpenAI) -> None:
    loop = Loop(client)
    loop.ask("Which comes first?")
    loop.ask("And now?", extra_body={"session_id": "named:by-the-body"}, extra_headers={"X-Session-Id": "in-a-header"})
    loop.ask("And here?", extra_headers={"X-Session-Id": "in-a-header"})
    assert loop.sessions[1:] == ["named:by-the-body", "in-a-header"]


def test_use_history_continues_a_recognised_window(server: Server, client: OpenAI) -> None:
    loop = Loop(client)
    loop.ask("My name is Ada. Remember it.")
    loop.ask("And my town is Turin.")
    whole = loop.messages
    loop.messages = whole[-2:]
    raw = client.chat.completions.with_raw_response.create(
        model=served_model(client),
        messages=[*loop.messages, {"role": "user", "content": "Who am I?"}],
        max_completion_tokens=2,
        extra_body={"use_history": True},
    )
    assert raw.headers["X-Session-Id"] == loop.session
    usage = raw.parse().usage
    assert usage is not None
    assert usage.prompt_tokens == server.count_tokens([*whole, {"role": "user", "content": "Who am I?"}])


def test_responses_without_a_previous_response_are_recognised_and_stored_once(server: Server, client: OpenAI) -> None:
    history: list[Any] = []
    sessions, ids = set(), []
    for question in ["Name a river.", "Another river.", "A third river."]:
        history.append({"role": "user", "content": question})
        response = client.responses.create(input=history, max_output_tokens=16, temperature=0)
        sessions.add(response.model_dump()["session_id"])
        ids.append(response.id)
        history += [item.model_dump(exclude_none=True) for item in response.output]
    (session,) = sessions
    wait_for(lambda: len(server.stored_messages(session)) == 6, "six messages")
    stored = [message["id"] for message in server.stored_messages(session)]
    with openai_client(server) as other:
        listed = [item.id for item in other.responses.input_items.list(ids[2], order="asc")]
    assert len(listed) == 5
    assert len(stored) == 6


@contextmanager
def api_beside(server: Server, data_dir: Path, url: str) -> Iterator[tuple[Server, OpenAI]]:
    """Run an API process in front of the shared model server, with its own journal and database."""
    settings = {"DATABASE_URL": url, **server.model_settings}
    with running_api(data_dir, **settings) as api, openai_client(api) as client:
        yield api, client


@pytest.fixture
def database_url(server: Server) -> Iterator[str]:
    with temporary_database(server, "recognised") as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_a_conversation_is_recognised_after_a_restart(
    server: Server, data_dir: Path, database_url: str, killed: bool
) -> None:
    with api_beside(server, data_dir, database_url) as (api, client):
        loop = Loop(client)
        loop.ask("Before the restart?")
        loop.ask("Still before?")
        if killed:
            api.kill()
    with api_beside(server, data_dir, database_url) as (api, client):
        loop.client = client
        wait_for(lambda: "are recognised if they are sent again" in api.log(), "what is stored is recognised")
        loop.ask("After it?")
        loop.ask("Long after?")
        assert_stored_once(api, loop)


def test_a_stream_that_a_kill_cut_off_is_continued(server: Server, data_dir: Path, database_url: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "Count upwards for a long time."}]
    with api_beside(server, data_dir, database_url) as (api, client):
        stream = client.chat.completions.create(
            model=served_model(client),
            messages=messages,
            max_completion_tokens=400,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        received = ""
        with pytest.raises(Exception, match=r".*"):  # noqa: PT012 - the stream ends wherever the kill comes
            for number, chunk in enumerate(stream):
                received += chunk.choices[0].delta.content or ""
                if number == 80:
                    api.kill()
    messages += [{"role": "assistant", "content": received}, {"role": "user", "content": "Go on."}]
    with api_beside(server, data_dir, database_url) as (api, client):
        wait_for(lambda: "are recognised if they are sent again" in api.log(), "what is stored is recognised")
        raw = client.chat.completions.with_raw_response.create(
            model=served_model(client), messages=messages, max_completion_tokens=4
        )
        session = raw.headers["X-Session-Id"]
        wait_for(lambda: len(api.stored_messages(session)) == 4, "the interrupted turn and the next one")


@pytest.mark.slow
def test_what_another_process_has_answered_is_joined_by_the_writer(
    server: Server, data_dir: Path, database_url: str
) -> None:
    """Two machines share a database: neither knows in memory what the other one answered."""
    texts = []
    with (
        api_beside(server, data_dir, database_url) as (first, first_client),
        api_beside(server, data_dir.with_name("other"), database_url) as (second, second_client),
    ):
        for api in (first, second):
            wait_for(lambda api=api: "are recognised if" in api.log(), "an empty index")  # type: ignore[misc]
        loop = Loop(first_client)
        for turn, (api, client) in enumerate([(first, first_client), (second, second_client)] * 2):
            loop.client = client
            loop.ask(f"Turn {turn} of a dialogue with two machines.")
            wait_for(lambda api=api: api.health()["recording"]["pending"] == 0, "the delivery")  # type: ignore[misc]
        assert loop.sessions[0] != loop.sessions[1]
        texts = [texts_of(api, session) for api in (first, second) for session in loop.sessions]
        listed = requests.get(f"{first.url}/v1/conversations", timeout=10).json()["data"]
        assert [(each["session_id"], each["message_count"]) for each in listed] == [(loop.sessions[0], 8)]
        # Deleted under the session id that leads to it.
        assert requests.delete(f"{first.url}/v1/conversations/{loop.sessions[1]}", timeout=10).status_code == 200
        for session in loop.sessions:
            assert requests.get(f"{first.url}/v1/conversations/{session}", timeout=10).status_code == 404
    assert texts == [texts[0]] * 8
    assert len(texts[0]) == 8


def test_a_deleted_conversation_is_not_continued(server: Server, client: OpenAI) -> None:
    loop = Loop(client)
    loop.ask("Delete me, please.")
    loop.ask("Now.")
    assert requests.delete(f"{server.url}/v1/conversations/{loop.session}", timeout=10).status_code == 200
    former = loop.session
    loop.sessions.clear()
    loop.ask("Am I gone?")
    assert loop.session != former


@pytest.mark.slow
def test_another_process_on_the_same_data_forgets_what_was_deleted(
    server: Server, data_dir: Path, database_url: str
) -> None:
    with (
        api_beside(server, data_dir, database_url) as (first, _),
        api_beside(server, data_dir, database_url) as (_second, client),
    ):
        loop = Loop(client)
        loop.ask("Who deletes me?")
        loop.ask("The other process.")
        former = loop.session
        url = f"{first.url}/v1/conversations/{former}"
        wait_for(lambda: requests.get(url, timeout=10).status_code == 200, "the conversation")
        assert requests.delete(url, timeout=10).status_code == 200

        raw = client.chat.completions.with_raw_response.create(
            model=served_model(client),
            messages=[*loop.messages, {"role": "user", "content": "And now?"}],
            max_completion_tokens=1,
            store=False,
        )
        assert raw.headers["X-Session-Id"] != former


@pytest.mark.slow
def test_another_process_continues_no_response_that_was_deleted(
    server: Server, data_dir: Path, database_url: str
) -> None:
    with (
        api_beside(server, data_dir, database_url) as (first, _),
        api_beside(server, data_dir, database_url) as (second, client),
    ):
        model = served_model(client)
        alone, other = (client.responses.create(model=model, input=f"Word {n}.", max_output_tokens=4) for n in (1, 2))
        later = client.responses.create(model=model, input="And?", previous_response_id=other.id, max_output_tokens=4)
        body = {"model": model, "input": "And now?", "max_output_tokens": 4}
        for deleted in (alone.id, later.id):
            url = f"{first.url}/v1/responses/{deleted}"
            assert requests.delete(url, timeout=30).status_code == 200
            continued = requests.post(
                f"{second.url}/v1/responses", json=body | {"previous_response_id": deleted}, timeout=30
            )
            assert continued.json()["error"]["code"] == "previous_response_not_found"
            assert requests.get(f"{second.url}/v1/responses/{deleted}", timeout=30).status_code == 404
        # The rest of its conversation is still there, in both.
        for api in (first, second):
            assert requests.get(f"{api.url}/v1/responses/{other.id}", timeout=30).status_code == 200
