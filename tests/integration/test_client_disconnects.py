"""A client that disconnects frees the model server's slot, at every stage of its request."""

from __future__ import annotations

import socket
from typing import Any
from uuid import uuid4

import psycopg2.extensions
import pytest
import requests

from tests.support.engine_counts import broken_off
from tests.support.processes import Server, wait_for
from tests.support.raw_requests import send_request

pytestmark = pytest.mark.usefixtures("idle_slots")

# The answer takes seconds to generate.
LENGTH = 1500
LONG_ANSWER = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": LENGTH, "ignore_eos": True}
# A tool call whose arguments take as long.
WORDS = {"type": "array", "items": {"type": "string", "minLength": 50}, "minItems": 200}
TOOL = {"type": "function", "function": {"name": "say", "parameters": {"properties": {"words": WORDS}}}}
RESHAPED = {
    "forced call": LONG_ANSWER | {"tools": [TOOL], "tool_choice": "required", "ignore_eos": False},
    "more choices than slots": LONG_ANSWER | {"n": 6},
    "log probabilities": LONG_ANSWER | {"logprobs": True},
    "completion": {"prompt": "Count.", "max_tokens": LENGTH, "ignore_eos": True},
    "list of prompts": {"prompt": ["Count."] * 6, "max_tokens": LENGTH, "ignore_eos": True},
}


def _long_prompt() -> str:
    """Return a prompt that a CPU takes seconds to read, so that the client disconnects before the first token.

    It is not in the model server's cache.
    """
    return f"{uuid4().hex} " + "word " * 1800


def _send(server: Server, body: dict[str, object], path: str | None = None) -> socket.socket:
    """Send a request to the endpoint that its body belongs to, unless another path is given."""
    return send_request(server, path or ("/v1/completions" if "prompt" in body else "/v1/chat/completions"), body)


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_before_the_first_token_frees_the_slot(server: Server, stream: bool) -> None:
    messages = [{"role": "user", "content": _long_prompt()}]
    with broken_off(server, 1), _send(server, {"messages": messages, "max_tokens": 50, "stream": stream}):
        wait_for(lambda: server.slots_busy() == 1, "a busy slot")


def test_disconnect_during_a_whole_response_frees_the_slot(server: Server) -> None:
    with broken_off(server, LENGTH), _send(server, LONG_ANSWER):
        wait_for(lambda: server.slots_busy() == 1, "a busy slot")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", RESHAPED)
def test_disconnect_during_a_converted_response_frees_the_slots(server: Server, kind: str, stream: bool) -> None:
    with broken_off(server, LENGTH), _send(server, RESHAPED[kind] | {"stream": stream}) as connection:
        wait_for(lambda: server.slots_busy() >= 1, "a busy slot")
        if stream:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/v1/messages", "/completion"])
@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_from_anthropic_and_llama_cpp_endpoints_frees_the_slot(
    server: Server, path: str, stream: bool
) -> None:
    prompt = _long_prompt()
    messages = [{"role": "user", "content": prompt}]
    body = {"messages": messages, "prompt": prompt, "max_tokens": 50, "stream": stream}
    with broken_off(server, 1), _send(server, body, path):
        wait_for(lambda: server.slots_busy() == 1, "a busy slot")


def test_disconnect_during_a_stream_frees_the_slot_and_stores_the_text(
    server: Server, http: requests.Session, session_id: str, database: psycopg2.extensions.cursor
) -> None:
    with (
        broken_off(server, LENGTH),
        _send(server, LONG_ANSWER | {"stream": True, "session_id": session_id}) as connection,
    ):
        received = b""
        while received.count(b"data: ") < 8:
            received += connection.recv(65536)

    def recorded() -> list[dict[str, object]]:
        answer = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10)
        messages: list[dict[str, object]] = answer.json().get("messages", [])
        return messages

    user, assistant = wait_for(recorded, "the interrupted exchange")
    assert user["status"] == "complete"
    assert assistant["status"] == "interrupted"
    assert len(str(assistant["content"])) > 5

    def usage() -> Any:
        query = "SELECT status, error_code, completion_tokens FROM api_usage WHERE session_id = %s"
        database.execute(query, (session_id,))
        return database.fetchone()

    status, error_code, tokens = dict(wait_for(usage, "the row of the request")).values()
    assert (status, error_code) == (499, "client_closed_request")
    assert tokens >= 6
