"""What the API processes of one server (API_PROCESSES) remember is the same in all: conversations, cached answers."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import Delta
from tests.support.dialogues import said
from tests.support.processes import Server, temporary_data_dir, wait_for
from tests.support.scripted_engine import say, scripted_engine
from tests.support.sibling_processes import SiblingClient, client_of, running_siblings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")
CHAT = "/v1/chat/completions"


@dataclass
class Engine:
    """A script: each answer has a number of its own, and what asks to be held waits until the test lets it."""

    answers: int = 0
    held: threading.Event = field(default_factory=threading.Event)

    def answer(self, body: dict[str, Any]) -> list[Delta]:
        """Answer the last message."""
        self.answers += 1
        if body["messages"][-1]["content"] == "hold":
            assert self.held.wait(60)
        return say(f"Answer {self.answers}")


@pytest.fixture(scope="module")
def engine() -> Engine:
    """What the model server says."""
    return Engine()


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Server]:
    """A server of two API processes that cache answers."""
    with (
        scripted_engine(engine.answer) as running,
        temporary_data_dir() as data_dir,
        running_siblings(data_dir, MODEL_SERVER_URL=running.url, CACHE_SECONDS="300") as server,
    ):
        yield server
        engine.held.set()


@pytest.fixture
def clients(server: Server) -> Iterator[list[SiblingClient]]:
    """A client of each process."""
    with client_of(server, 1) as one, client_of(server, 2) as two:
        yield [one, two]


def _ask(client: SiblingClient, messages: list[ChatMessage], **fields: Any) -> tuple[str, str, str | None]:
    """Return the answer to a list, its session, and whether it came from the cache."""
    answer = client.open("POST", CHAT, {"messages": messages, **fields})
    body = json.loads(answer.read())
    assert answer.status == 200, body
    return body["choices"][0]["message"]["content"], answer.headers["X-Session-Id"], answer.headers["X-Cache"]


def test_conversation_goes_on_in_any_process_until_one_deletes_it(clients: list[SiblingClient]) -> None:
    history = said("Is it recognised?")
    first, session, _ = _ask(clients[1], history)
    texts = ["Is it recognised?", first]
    for number in range(6):
        texts.append(f"Question {number}")
        answer, continued, _ = _ask(clients[number % 2], said(*texts))
        assert continued == session
        texts.append(answer)
    assert clients[1].ask("DELETE", f"/v1/conversations/{session}")[0] == 200
    for client in clients:
        assert _ask(client, said(*texts, "And now?"))[1] != session


def test_cached_answer_is_given_by_any_process_until_one_drops_it(clients: list[SiblingClient]) -> None:
    for number, (one, two) in enumerate((clients, clients[::-1])):
        messages = said(f"What is {number}?")
        answer, session, cache = _ask(one, messages, temperature=0)
        assert cache == "miss"
        assert _ask(two, messages, temperature=0)[::2] == (answer, "hit")
        assert two.ask("DELETE", f"/v1/conversations/{session}")[0] == 200
        assert _ask(one, messages, temperature=0)[2] == "miss"


def test_read_shows_a_turn_that_ended_elsewhere_before_the_first_one(
    server: Server, clients: list[SiblingClient], engine: Engine
) -> None:
    """The first turn of a session is still in the journal, and the other one has been delivered."""
    one, two = clients
    stream = one.open("POST", CHAT, {"messages": said("hold"), "stream": True})
    session = stream.headers["X-Session-Id"]
    assert _ask(two, said("In between"), session_id=session)[1] == session
    wait_for(lambda: server.health()["recording"]["pending"] == 0, "delivery", 30)
    engine.held.set()
    stream.read()
    _, body = one.ask("GET", f"/v1/conversations/{session}")
    assert [each["content"] for each in body["messages"] if each["role"] == "user"] == ["In between", "hold"]


def test_key_that_one_process_makes_or_revokes_any_other_lets_in_or_refuses_at_once(
    clients: list[SiblingClient],
) -> None:
    """The last test: afterwards the server has keys, and every caller needs one."""
    one, two = clients
    status, admin = one.ask("POST", "/v1/keys", {"name": "admin", "scopes": ["admin", "inference"]})
    assert status == 200, admin
    as_admin = {"Authorization": f"Bearer {admin['key']}"}
    for making, using in ((one, two), (two, one)) * 3:
        _, made = making.ask("POST", "/v1/keys", {"name": "user"}, **as_admin)
        as_user = {"Authorization": f"Bearer {made['key']}"}
        assert using.ask("GET", "/v1/models", **as_user)[0] == 200
        assert making.ask("DELETE", f"/v1/keys/{made['id']}", **as_admin)[0] == 200
        assert using.ask("GET", "/v1/models", **as_user)[0] == 401
