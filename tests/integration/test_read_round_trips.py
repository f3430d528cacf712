"""What a read costs over a long way to PostgreSQL, and what can be read without it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from bench.delay import DelayedProxy, delayed_proxy
from mistral_api import create_app
from mistral_api.delivery.gpu_sampler import GpuSampler
from mistral_api.delivery.housekeeping import Housekeeping
from mistral_api.errors import Unavailable
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.recording.exchange import Exchange
from mistral_api.services import Services, services_of
from mistral_api.settings import Settings
from mistral_api.system.identifiers import new_id, new_session_id
from tests.support.error_shape import assert_error_shape
from tests.support.exchanges import make_exchange, question, record_exchange, reply
from tests.support.processes import wait_for

FIRST_ID = UUID(int=0x19B << 80 | 7 << 76 | 2 << 62 | 5)
MADE_ID = new_session_id(FIRST_ID)
RESPONSE_ID = "resp_" + "0a" * 16
NOWHERE = "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"


def _exchanges() -> list[Exchange]:
    """Return turns of a session that its client named and of one that this server named, and stored objects."""
    response: Any = {"id": RESPONSE_ID, "status": "completed", "created_at": 1, "conversation": None}
    return [
        make_exchange("named", messages=question("Hello quagga"), answers=reply("Hi")),
        make_exchange(MADE_ID, messages=question("Hello zebra"), answers=reply("Ho")),
        make_exchange("stored", messages=question("Keep"), answers=reply("Kept"),
                      storing={"object": "chat.completion", "metadata": {}},
                      stored={"id": "chatcmpl-1", "model": "m", "choices": []}),
        make_exchange("response", messages=question("Respond"), answers=reply("Done"), message_ids=[new_id()],
                      answer_id=new_id(), storing={"object": "response", "body": response}, stored=response),
    ]  # fmt: skip


@pytest.fixture
def only_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an application start nothing but its recorder: whatever else asks PostgreSQL would be counted too."""
    monkeypatch.setattr(Services, "start", lambda services: services.recorder.start())
    for part in (Housekeeping, GpuSampler):
        for method in ("start", "close"):
            monkeypatch.setattr(part, method, lambda _part: None)


@pytest.fixture
def proxy(engine: Engine) -> Iterator[DelayedProxy]:
    """A proxy in front of PostgreSQL that counts round trips."""
    query = engine.url.query
    with delayed_proxy(Path(str(query["host"])) / f".s.PGSQL.{query['port']}", 0.0) as made:
        yield made


@pytest.fixture
def far(
    engine: Engine, proxy: DelayedProxy, delivery: threading.Event, only_recording: None, tmp_path: Path
) -> Iterator[Flask]:
    """An application behind the proxy. Its exchanges are not delivered yet."""
    url = engine.url.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=proxy.port)
    yield from _application(url.render_as_string(hide_password=False), tmp_path)
    delivery.set()


@pytest.fixture
def alone(only_recording: None, tmp_path: Path) -> Iterator[Flask]:
    """An application whose PostgreSQL does not run."""
    yield from _application(NOWHERE, tmp_path)


def _application(url: str, data_dir: Path) -> Iterator[Flask]:
    app = create_app(Settings(database_url=url, data_dir=data_dir))
    services = services_of(app.extensions)
    services.start()
    services.key_ring.replace([], complete=True)  # nothing watches the keys
    for exchange in _exchanges():
        if exchange.session_id == MADE_ID:
            exchange.id = FIRST_ID
        record_exchange(services.recorder, exchange)
    yield app
    services.recorder.close(0)
    services.close()


def _recall(session_id: str) -> Callable[[FlaskClient], list[Any]]:
    """Return a function that begins a turn with ``use_history``, up to the prompt."""

    def recall(client: FlaskClient) -> list[Any]:
        payload: ChatPayload = {"session_id": session_id, "use_history": True, "messages": question("Go on")}
        continued = services_of(client.application.extensions).session_history.recall(payload, "local")
        assert continued is not None
        return [message["content"] for message in continued.history]

    return recall


def _get(path: str) -> Callable[[FlaskClient], Any]:
    def get(client: FlaskClient) -> Any:
        answer = client.get(path)
        assert answer.status_code == 200, answer.get_json()
        return answer.get_json()

    return get


Read = Callable[[FlaskClient], Any]
# A read, and the round trips that it costs before delivery.
READS: dict[str, tuple[Read, int]] = {
    "conversation": (_get("/v1/conversations/named"), 1),
    "page": (_get("/v1/conversations/named?limit=1"), 1),
    "conversation of ours": (_get(f"/v1/conversations/{MADE_ID}"), 0),
    "items": (_get("/v1/conversations/named/items"), 1),
    "items of ours": (_get(f"/v1/conversations/{MADE_ID}/items?order=asc"), 0),
    "list": (_get("/v1/conversations"), 1),
    "rest of the list": (_get("/v1/conversations?after=response"), 1),
    "search": (_get("/v1/conversations?q=quagga"), 1),
    "completion": (_get("/v1/chat/completions/chatcmpl-1"), 0),
    "completions": (_get("/v1/chat/completions"), 1),
    "messages of a completion": (_get("/v1/chat/completions/chatcmpl-1/messages"), 0),
    "response": (_get(f"/v1/responses/{RESPONSE_ID}"), 0),
    "input of a response": (_get(f"/v1/responses/{RESPONSE_ID}/input_items"), 0),
    "history": (_recall("named"), 1),
    "history of ours": (_recall(MADE_ID), 0),
}


@pytest.mark.parametrize("name", READS)
def test_read_costs_one_round_trip_at_most_before_and_after_delivery(
    far: Flask, proxy: DelayedProxy, delivery: threading.Event, name: str
) -> None:
    read, trips = READS[name]
    client = far.test_client()
    client.get("/v1/conversations/nothing")  # opens the connection
    before = proxy.round_trips
    early = read(client)
    assert proxy.round_trips - before == trips
    delivery.set()
    recorder = services_of(far.extensions).recorder
    wait_for(lambda: recorder.state().pending == 0, "an empty journal")
    before = proxy.round_trips
    assert read(client) == early
    assert proxy.round_trips - before == 1


@pytest.mark.parametrize("name", sorted(set(READS) - {"history"}))
def test_journal_is_read_without_postgresql(alone: Flask, name: str) -> None:
    began = time.monotonic()
    assert READS[name][0](alone.test_client())
    assert time.monotonic() - began < 8


def test_history_that_postgresql_may_have_the_beginning_of_is_unavailable_without_it(alone: Flask) -> None:
    with pytest.raises(Unavailable) as away:
        READS["history"][0](alone.test_client())
    assert away.value.code == "database_unavailable"


def test_conversation_without_postgresql_says_that_there_may_be_more(alone: Flask) -> None:
    client = alone.test_client()
    body = client.get("/v1/conversations/named").get_json()
    assert [message["content"] for message in body["messages"]] == ["Hello quagga", "Hi"]
    assert body["has_more"]
    assert not client.get(f"/v1/conversations/{MADE_ID}").get_json()["has_more"]
    listed = client.get("/v1/conversations").get_json()
    assert [each["id"] for each in listed["data"]] == ["response", "stored", MADE_ID, "named"]
    assert listed["has_more"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/conversations/elsewhere",
        "/v1/conversations/named?before={id}",
        "/v1/conversations/named/items/msg_{id}",
        "/v1/conversations?after=elsewhere",
        "/v1/chat/completions/chatcmpl-2",
        "/v1/chat/completions?after=chatcmpl-2",
        "/v1/responses/resp_{id}",
        "/v1/stats",
    ],
)
def test_what_the_journal_does_not_have_is_unavailable_without_postgresql(alone: Flask, path: str) -> None:
    answer = alone.test_client().get(path.format(id=new_id().hex))
    assert answer.status_code == 503
    assert_error_shape(answer.get_json(), code="database_unavailable")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/v1/conversations/named", {"title": "x"}),
        ("POST", "/v1/conversations/named", {"metadata": {}}),
        ("DELETE", "/v1/conversations/named", None),
        ("POST", "/v1/conversations/named/items", {"items": [{"role": "user", "content": "x"}]}),
        ("POST", "/v1/chat/completions/chatcmpl-1", {"metadata": {}}),
        ("DELETE", "/v1/chat/completions/chatcmpl-1", None),
        ("DELETE", f"/v1/responses/{RESPONSE_ID}", None),
    ],
)
def test_change_of_what_is_not_delivered_is_unavailable_without_postgresql(
    alone: Flask, method: str, path: str, body: Any
) -> None:
    began = time.monotonic()
    answer = alone.test_client().open(path, method=method, json=body)
    assert answer.status_code == 503
    assert_error_shape(answer.get_json(), code="database_unavailable")
    assert answer.headers["Retry-After"]
    assert time.monotonic() - began < 8


def test_response_is_continued_from_the_journal_alone(alone: Flask) -> None:
    context = services_of(alone.extensions).response_store.context("local", RESPONSE_ID)
    assert [message["content"] for message in context.messages] == ["Respond", "Done"]


def test_process_reads_what_another_one_has_journaled(alone: Flask, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.support.exchanges import make_exchange, question, record_exchange, reply, undelivered_recorder\n"
        "recorder = undelivered_recorder(Path(sys.argv[1]))\n"
        "recorder.start()\n"
        "record_exchange(recorder, make_exchange('other', messages=question('From afar'), answers=reply('Hi')))\n"
        "recorder.close(seconds=0)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "journal")]
    subprocess.run(command, check=True, timeout=60)
    client = alone.test_client()
    body = client.get("/v1/conversations/other").get_json()
    assert [message["content"] for message in body["messages"]] == ["From afar", "Hi"]
    assert client.get("/v1/conversations?limit=1").get_json()["first_id"] == "other"
