"""The model server hangs during a generation: the supervisor detects it, kills it and starts another."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import orjson
import psutil
import pytest
import requests

from mistral_api.control.status import read_status
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
HELLO = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 3, "temperature": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A stack for this module, on the real engine."""
    with (
        temporary_data_dir() as data_dir,
        running_server(data_dir, CONTEXT_SIZE="8192", HANG_SECONDS="2", THREADS="2") as running,
    ):
        yield running


def test_stream_gets_an_error_when_the_model_server_hangs_and_the_next_request_is_served(
    server: Server,
) -> None:
    pid = server.health()["model_server"]["pid"]
    body = HELLO | {"stream": True, "max_tokens": 1900, "ignore_eos": True, "session_id": "stopped"}
    with requests.post(f"{server.url}/v1/chat/completions", json=body, stream=True, timeout=60) as answer:
        pieces = answer.iter_content(None)
        received = next(pieces) + next(pieces)
        os.kill(pid, signal.SIGSTOP)
        received += b"".join(pieces)
    last = received.strip().split(b"\n\n")[-1]
    assert_error_shape(orjson.loads(last.removeprefix(b"data: ")), code="model_server_error")
    assert requests.post(f"{server.url}/v1/chat/completions", json=HELLO, timeout=60).status_code == 200
    assert not psutil.pid_exists(pid)
    status = read_status(server.data_dir)
    assert status is not None
    assert len(status.last_restarts) == 1
    assert status.last_restarts[0].reason.startswith("the model server hung: it has not answered for ")
    stored = requests.get(f"{server.url}/v1/conversations/stopped", timeout=10).json()["messages"]
    assert [message["status"] for message in stored] == ["complete", "interrupted"]


def test_hanging_idle_model_server_is_replaced_without_a_request(server: Server) -> None:
    before = server.health()["model_server"]
    os.kill(before["pid"], signal.SIGSTOP)

    def replaced() -> bool:
        status = read_status(server.data_dir)
        return status is not None and status.state.value == "ready" and status.pid not in (None, before["pid"])

    wait_for(replaced, "another model server", 30)
    assert server.health()["model_server"]["restarts"] == before["restarts"] + 1


@pytest.mark.slow
def test_looping_model_server_with_a_good_health_is_replaced(server: Server) -> None:
    # No text has at least 5 and at most 2 characters: llama.cpp searches for one forever. The API refuses this schema,
    # so the request goes to the model server directly.
    nothing_fits = {"type": "string", "minLength": 5, "maxLength": 2}
    schema = {"type": "json_schema", "json_schema": {"name": "none", "schema": nothing_fits}}
    before = server.health()["model_server"]
    with pytest.raises(requests.ConnectionError):
        requests.post(
            f"{server.model_url}/v1/chat/completions",
            json=HELLO | {"response_format": schema},
            headers=server.model_key,
            timeout=60,
        )
    assert requests.post(f"{server.url}/v1/chat/completions", json=HELLO, timeout=60).status_code == 200
    assert server.health()["model_server"]["restarts"] == before["restarts"] + 1
