"""A change that waits for the delivery of what it changes holds no connection to PostgreSQL while it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from mistral_api import create_app
from mistral_api.recording.recorder import Recorder
from mistral_api.services import services_of
from mistral_api.settings import Settings
from tests.support.exchanges import make_exchange, question, reply
from tests.support.processes import SCHEMA

COMPLETION_ID = "chatcmpl-held-back"


@pytest.fixture
def client(engine: Engine, tmp_path: Path) -> Iterator[FlaskClient]:
    """A client of an API that has one connection for everything that it reads."""
    url = engine.url.render_as_string(hide_password=False)
    app = create_app(Settings(database_url=url, database_schema=SCHEMA, database_pool_size=1, data_dir=tmp_path))
    yield app.test_client()
    services_of(app.extensions).close()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as a change waits."""
    begun = threading.Event()
    require_delivered = Recorder._require_delivered

    def wait(self: Recorder, *conditions: Any) -> None:
        begun.set()
        require_delivered(self, *conditions)

    monkeypatch.setattr(Recorder, "_require_delivered", wait)
    return begun


def _record_completion(client: FlaskClient) -> None:
    """Journal a stored completion as a finished request leaves it."""
    recorder = services_of(client.application.extensions).recorder
    exchange = make_exchange(
        "a-session", messages=question("Hello"), storing={"object": "chat.completion", "metadata": {}}
    )
    position = recorder.begin(exchange, lambda: None)
    exchange.answers = reply("Good day")
    exchange.stored = {"object": "chat.completion", "id": COMPLETION_ID, "model": "m", "choices": []}
    recorder.end(position, exchange)


COMPLETION_URL, CONVERSATION_URL = f"/v1/chat/completions/{COMPLETION_ID}", "/v1/conversations/a-session"
ITEM = {"role": "user", "content": "More"}
# A request, and the status it is answered with as soon as the completion is delivered.
REQUESTS: dict[str, tuple[Callable[[FlaskClient], Any], int]] = {
    "completion": (lambda client: client.post(COMPLETION_URL, json={"metadata": {"a": "b"}}), 200),
    "deleted completion": (lambda client: client.delete(COMPLETION_URL), 200),
    "title": (lambda client: client.patch(CONVERSATION_URL, json={"title": "new"}), 200),
    "metadata": (lambda client: client.post(CONVERSATION_URL, json={"metadata": {"a": "b"}}), 200),
    "deleted conversation": (lambda client: client.delete(CONVERSATION_URL), 200),
    "new items": (lambda client: client.post(f"{CONVERSATION_URL}/items", json={"items": [ITEM]}), 200),
    "deleted item": (lambda client: client.delete(f"{CONVERSATION_URL}/items/msg_{'0' * 32}"), 404),
    "deleted response": (lambda client: client.delete("/v1/responses/resp_" + "0" * 32), 404),
}


@pytest.mark.parametrize(("request_of", "status"), REQUESTS.values(), ids=REQUESTS.keys())
def test_reads_are_served_while_a_change_waits_for_delivery(
    client: FlaskClient,
    delivery: threading.Event,
    waiting: threading.Event,
    request_of: Callable[[FlaskClient], Any],
    status: int,
) -> None:
    with ThreadPoolExecutor() as threads:
        _record_completion(client)
        first = threads.submit(request_of, client.application.test_client())
        assert waiting.wait(5)
        for url in (COMPLETION_URL, CONVERSATION_URL):
            assert (client.get(url).status_code, first.done()) == (200, False)
        delivery.set()
        assert first.result(timeout=10).status_code == status
