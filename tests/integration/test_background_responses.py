"""Background responses: polled, streamed, cancelled, and deleted with their conversation."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import requests
from openai import OpenAI
from openai.types.responses import Response

from tests.support.engine_counts import broken_off
from tests.support.processes import Server, wait_for

SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 16}
ENDLESS: dict[str, Any] = {"max_output_tokens": 1500, "extra_body": {"ignore_eos": True}}


def test_background_response_is_polled_and_streamed_from_a_sequence_number(
    client: OpenAI, http: requests.Session, server: Server, model: str
) -> None:
    queued = client.responses.create(model=model, input="Count.", background=True, **SHORT)
    assert queued.status in ("queued", "in_progress")
    done = wait_for(lambda: _if_finished(client.responses.retrieve(queued.id)), "the end of a response")
    assert done.output_text
    events = http.get(f"{server.url}/v1/responses/{queued.id}?stream=true&starting_after=2", timeout=10).text
    assert "event: response.queued" not in events
    assert events.count("event: response.output_text.done") == 1
    made = client.responses.create(model=model, input="Count.", **SHORT)
    with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
        client.responses.retrieve(made.id, stream=True)


def _if_finished(response: Response) -> Response | None:
    return response if response.status not in ("queued", "in_progress") else None


def test_background_response_completes_after_its_streaming_client_left(client: OpenAI, model: str) -> None:
    with client.responses.create(model=model, input="Count.", background=True, stream=True, **SHORT) as stream:
        first = next(iter(stream))
    assert first.type == "response.created"
    done = wait_for(lambda: _if_finished(client.responses.retrieve(first.response.id)), "the end of a response")
    assert done.status in ("completed", "incomplete")


def test_only_a_background_response_can_be_cancelled(client: OpenAI, server: Server, model: str) -> None:
    with broken_off(server, ENDLESS["max_output_tokens"]):
        queued = client.responses.create(model=model, input="Count.", background=True, **ENDLESS)
        wait_for(lambda: server.slots_busy() == 1, "a busy slot")
        (asked,) = client.responses.input_items.list(queued.id).data
        for _ in range(2):
            assert client.responses.cancel(queued.id).status == "cancelled"
    assert client.responses.retrieve(queued.id).status == "cancelled"
    assert client.responses.input_items.list(queued.id).data == [asked]
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=model, input="Hi.", previous_response_id=queued.id, **SHORT)
    made = client.responses.create(model=model, input="Hi.", **SHORT)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(made.id)


def test_background_response_is_deleted_with_its_conversation(
    client: OpenAI, http: requests.Session, server: Server, model: str
) -> None:
    queued = client.responses.create(model=model, input="Count.", background=True, **SHORT)
    done = wait_for(lambda: _if_finished(client.responses.retrieve(queued.id)), "the end of a response")
    session_id = (done.model_extra or {})["session_id"]
    assert http.delete(f"{server.url}/v1/conversations/{session_id}", timeout=10).status_code == 200
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(queued.id)
    events = http.get(f"{server.url}/v1/responses/{queued.id}?stream=true", timeout=10)
    assert events.status_code == 404
