"""Sessions that two owners name alike, and histories that one sends to the other's server: each has their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from mistral_api.web.operations import OPERATIONS
from tests.support.databases import empty_tables
from tests.support.owned_api import CHAT_PATH, RESPONSES, OwnedApi, OwnerClient, make_things, running_owned_api, view_of
from tests.support.processes import Server, temporary_data_dir

pytestmark = pytest.mark.slow

_CHAT = {"messages": [{"role": "user", "content": "About WORD."}], "max_tokens": 2}
_RAW = {"prompt": "About WORD.", "n_predict": 2}
_OLLAMA = {"stream": False, "options": {"num_predict": 2}}
# A request that takes a ``session_id``, for each such operation: its path, and its body.
GENERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat.create_chat_completion": (CHAT_PATH, _CHAT),
    "completions.create_completion": ("/v1/completions", {"prompt": "About WORD.", "max_tokens": 2}),
    "responses.create": (RESPONSES, {"input": "About WORD.", "max_output_tokens": 16}),
    "anthropic.create_message": ("/v1/messages", _CHAT),
    "ollama.chat": ("/api/chat", _OLLAMA | {"messages": _CHAT["messages"]}),
    "ollama.generate": ("/api/generate", _OLLAMA | {"prompt": "About WORD."}),
    "llama_cpp.complete": ("/completion", _RAW),
    "llama_cpp.completion_alias": ("/completions", _RAW),
}
# The model of these tests fills no gaps; ``test_prompt_cache_of_owners`` has one that does.
_WITHOUT_MODEL = {"llama_cpp.infill"}
CLIENTS: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({"X_Session_Id": "SESSION"}, {}),
    ({"X_Claude_Code_Session_Id": "SESSION"}, {}),
    ({"X_OpenWebUI_Chat_Id": "SESSION"}, {}),
    ({"X_LibreChat_Conversation_Id": "SESSION"}, {}),
    ({"X_Conversation_Id": "SESSION"}, {}),
    ({"x_litellm_session_id": "SESSION"}, {}),
    ({"originator": "codex_exec"}, {"prompt_cache_key": "SESSION"}),
    ({"My_Chat": "SESSION"}, {}),
]


@pytest.fixture(scope="module")
def api(server: Server, database_engine: Engine) -> Iterator[OwnedApi]:
    """An API beside the shared stack."""
    empty_tables(database_engine)
    with (
        temporary_data_dir() as data_dir,
        running_owned_api(server, database_engine, data_dir, session_headers=("My-Chat",)) as running,
    ):
        yield running


@pytest.fixture
def session() -> str:
    """The id of a session that both owners name."""
    return f"shared-{uuid4().hex}"


def contents(client: OwnerClient, session_id: str) -> str:
    """Return what was asked in a conversation, as text: the model repeats it, or not."""
    messages = client.json("GET", f"/v1/conversations/{session_id}")["messages"]
    return str([each["content"] for each in messages if each["role"] == "user"])


def with_word(body: dict[str, Any], word: str) -> dict[str, Any]:
    """Return a body that is about a word."""
    filled: dict[str, Any] = json.loads(json.dumps(body).replace("WORD", word))
    return filled


def test_every_operation_that_takes_a_session_is_tried() -> None:
    assert {name for name, each in OPERATIONS.items() if each.of_session} == set(GENERATIONS) | _WITHOUT_MODEL


@pytest.mark.parametrize("operation", GENERATIONS)
def test_session_id_of_another_owner_is_ones_own_session(api: OwnedApi, session: str, operation: str) -> None:
    path, body = GENERATIONS[operation]
    fields = {"session_id": session}
    for client, word in ((api.anna, "zebra"), (api.ann, "gnu"), (api.phone, "zebra2")):
        answer = client.send("POST", path, with_word(body, word) | fields)
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-Session-Id"] == session
    assert contents(api.ann, session).count("About") == 1
    for _ in ("in the journal, or on the way", "in PostgreSQL"):
        assert "zebra" not in contents(api.ann, session)
        assert "gnu" in contents(api.ann, session)
        assert "gnu" not in contents(api.anna, session)
        assert "zebra2" in contents(api.anna, session)
        api.wait_until_delivered()


@pytest.mark.parametrize(("headers", "fields"), CLIENTS)
def test_session_of_a_known_client_is_ones_own(
    api: OwnedApi, session: str, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    headers = {name: value.replace("SESSION", session) for name, value in headers.items()}
    fields = {name: value.replace("SESSION", session) for name, value in fields.items()}
    for client, word in ((api.anna, "zebra"), (api.ann, "gnu")):
        answer = client.send("POST", CHAT_PATH, with_word(_CHAT, word) | fields, **headers)
        assert answer.headers["X-Session-Id"] == session, answer.text
    assert re.findall("zebra|gnu", contents(api.ann, session)) == ["gnu"]
    assert re.findall("zebra|gnu", contents(api.phone, session)) == ["zebra"]


def test_history_of_a_session_that_another_owner_names_alike_is_not_read(api: OwnedApi, session: str) -> None:
    api.anna.chat("A long story about a zebra that nobody else shall read.", session_id=session)
    alone = api.ann.chat("Hello").json()["usage"]["prompt_tokens"]
    for _ in ("in the journal, or on the way", "in PostgreSQL"):
        fields = {"session_id": f"{session}", "use_history": True}
        answer = api.ann.chat("Hello", **fields | {"store": False})
        assert answer.json()["usage"]["prompt_tokens"] == alone
        assert api.phone.chat("Hello", **fields | {"store": False}).json()["usage"]["prompt_tokens"] > alone
        api.wait_until_delivered()
    asked = {"input": "Hello", "max_output_tokens": 16, "session_id": session}
    own = api.ann.json("POST", RESPONSES, asked)["usage"]["input_tokens"]
    assert own < api.phone.json("POST", RESPONSES, asked)["usage"]["input_tokens"]


@pytest.mark.parametrize("delivered", [False, True])
def test_history_that_another_owner_was_answered_leads_nowhere(api: OwnedApi, delivered: bool) -> None:
    question = {"role": "user", "content": f"Tell me about {uuid4().hex}."}
    asked = {"messages": [question], "max_tokens": 60, "ignore_eos": True}
    first = api.anna.send("POST", CHAT_PATH, asked)
    if delivered:
        api.wait_until_delivered()
    session, answered = first.headers["X-Session-Id"], first.json()["choices"][0]["message"]
    history = {"messages": [question, answered, {"role": "user", "content": "Go on."}], "max_tokens": 2}
    before = contents(api.anna, session)
    foreign = api.ann.send("POST", CHAT_PATH, history).headers["X-Session-Id"]
    assert foreign != session
    # The writer looks once more, in the whole database.
    api.wait_until_delivered()
    assert api.ann.send("GET", f"/v1/conversations/{session}").status_code == 404
    assert contents(api.anna, session) == before
    assert "Go on." in contents(api.ann, foreign)
    assert api.phone.send("POST", CHAT_PATH, history).headers["X-Session-Id"] == session


def test_deleting_a_session_leaves_that_of_another_owner(api: OwnedApi, session: str) -> None:
    for client in (api.anna, api.ann):
        client.chat("Say zebra.", session_id=session)
    before = contents(api.anna, session)
    assert api.ann.json("DELETE", f"/v1/conversations/{session}")["deleted"] is True
    assert api.ann.send("GET", f"/v1/conversations/{session}").status_code == 404
    assert contents(api.phone, session) == before


def test_request_id_of_another_owner_changes_nothing(api: OwnedApi) -> None:
    things = make_things(api.anna, "okapi")
    made = api.anna.chat("Say okapi.", store=True)
    before, request_id = view_of(api.anna, things), made.headers["X-Request-Id"]
    again = api.ann.send("POST", CHAT_PATH, with_word(_CHAT, "gnu") | {"store": True}, X_Request_Id=request_id)
    assert again.status_code == 200
    assert again.json()["id"] != made.json()["id"]
    api.wait_until_delivered()
    assert view_of(api.anna, things) == before
    assert api.ann.send("GET", f"{CHAT_PATH}/{made.json()['id']}").status_code == 404
    assert api.anna.send("GET", f"{CHAT_PATH}/{made.json()['id']}").status_code == 200
    assert api.ann.send("GET", f"{CHAT_PATH}/{again.json()['id']}").status_code == 200
