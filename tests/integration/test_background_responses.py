"""Responses in the background: polled, followed, cancelled, and failed where their process ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI
from openai.types.responses import Response

from tests.databases import another_database
from tests.running import Server, api_alone, wait_for

SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 16}
ENDLESS: dict[str, Any] = {"max_output_tokens": 1500, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def model(client: OpenAI) -> str:
    """The model served."""
    return client.models.list().data[0].id


def test_in_the_background_it_can_be_polled_and_followed(
    client: OpenAI, http: requests.Session, server: Server, model: str
) -> None:
    queued = client.responses.create(model=model, input="Count.", background=True, **SHORT)
    assert queued.status in ("queued", "in_progress")
    done = wait_for(lambda: _ended(client.responses.retrieve(queued.id)), "the end of a response")
    assert done.output_text
    events = http.get(f"{server.url}/v1/responses/{queued.id}?stream=true&starting_after=2", timeout=10).text
    assert "event: response.queued" not in events
    assert events.count("event: response.output_text.done") == 1
    made = client.responses.create(model=model, input="Count.", **SHORT)
    with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
        client.responses.retrieve(made.id, stream=True)


def _ended(response: Response) -> Response | None:
    return response if response.status not in ("queued", "in_progress") else None


def test_in_the_background_it_streams_and_survives_its_client(client: OpenAI, model: str) -> None:
    with client.responses.create(model=model, input="Count.", background=True, stream=True, **SHORT) as stream:
        first = next(iter(stream))
    assert first.type == "response.created"
    done = wait_for(lambda: _ended(client.responses.retrieve(first.response.id)), "the end of a response")
    assert done.status in ("completed", "incomplete")


def test_it_can_be_cancelled_in_the_background_only(client: OpenAI, server: Server, model: str) -> None:
    queued = client.responses.create(model=model, input="Count.", background=True, **ENDLESS)
    wait_for(lambda: server.slots_busy() == 1, "a busy slot")
    (asked,) = client.responses.input_items.list(queued.id).data
    for _ in range(2):
        assert client.responses.cancel(queued.id).status == "cancelled"
    wait_for(lambda: server.slots_busy() == 0, "a freed slot", 2.5)
    assert client.responses.retrieve(queued.id).status == "cancelled"
    assert client.responses.input_items.list(queued.id).data == [asked]
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=model, input="Hi.", previous_response_id=queued.id, **SHORT)
    made = client.responses.create(model=model, input="Hi.", **SHORT)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(made.id)


def test_it_goes_with_its_conversation(client: OpenAI, http: requests.Session, server: Server, model: str) -> None:
    queued = client.responses.create(model=model, input="Count.", background=True, **SHORT)
    done = wait_for(lambda: _ended(client.responses.retrieve(queued.id)), "the end of a response")
    session_id = (done.model_extra or {})["session_id"]
    assert http.delete(f"{server.url}/v1/conversations/{session_id}", timeout=10).status_code == 200
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(queued.id)
    events = http.get(f"{server.url}/v1/responses/{queued.id}?stream=true", timeout=10)
    assert events.status_code == 404


def _status(http: requests.Session, api: Server, response_id: str) -> str:
    found = http.get(f"{api.url}/v1/responses/{response_id}", timeout=10)
    return str(found.json()["status"]) if found.status_code == 200 else str(found.status_code)


def _respond(http: requests.Session, api: Server, **fields: str) -> requests.Response:
    body = {"input": "Go on.", "max_output_tokens": 16} | fields
    return http.post(f"{api.url}/v1/responses", json=body, timeout=60)


def _start_endless(http: requests.Session, api: Server) -> str:
    body = {"input": "Count.", "background": True, "max_output_tokens": 1500, "ignore_eos": True}
    response_id: str = http.post(f"{api.url}/v1/responses", json=body, timeout=30).json()["id"]
    wait_for(lambda: _status(http, api, response_id) == "in_progress", "a response in progress")
    wait_for(lambda: api.slots_busy() == 1, "a busy slot")
    return response_id


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_it_has_failed_where_its_process_ended(
    server: Server, http: requests.Session, data_dir: Path, how: signal.Signals
) -> None:
    with another_database(server, f"background_{how.name.lower()}") as url:
        settings = {"DATABASE_URL": url, "MODEL_SERVER_PORT": str(server.model_port)}
        with api_alone(data_dir, **settings) as api:
            done = _respond(http, api).json()
            response_id = _start_endless(http, api)
            os.kill(api.process.pid, how)
            api.process.wait(timeout=20)
        with api_alone(data_dir, **settings) as api:
            wait_for(lambda: _status(http, api, response_id) == "failed", "the failed response")
            assert http.get(f"{api.url}/v1/responses/{done['id']}", timeout=10).json() == done
            assert _respond(http, api, previous_response_id=done["id"]).status_code == 200
            assert _respond(http, api, previous_response_id=response_id).status_code == 400
    wait_for(lambda: server.slots_busy() == 0, "idle slots")
