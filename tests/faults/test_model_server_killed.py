"""The model server is killed: only requests in progress are affected."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import orjson
import psutil
import pytest
import requests

from tests.support.engine_counts import most_processed
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for
from tests.support.raw_requests import send_request
from tests.support.recorded_usage import recorded_usage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
HELLO = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 3, "temperature": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A stack for this module, whose model server is killed."""
    with temporary_data_dir() as data_dir, running_server(data_dir, CONTEXT_SIZE="8192") as running:
        yield running


def _kill(server: Server) -> tuple[int, int]:
    """Kill the model server with SIGKILL; return its pid and the number of restarts before."""
    model_server = server.health()["model_server"]
    os.kill(model_server["pid"], signal.SIGKILL)
    return model_server["pid"], model_server["restarts"]


def _wait_until_ready(server: Server) -> None:
    wait_for(lambda: requests.get(f"{server.url}/health", timeout=10).status_code == 200, "health", 30)


def test_next_request_is_served_after_the_idle_model_server_was_killed(server: Server) -> None:
    assert requests.post(f"{server.url}/v1/chat/completions", json=HELLO, timeout=60).status_code == 200
    pid, restarts = _kill(server)
    answer = requests.post(f"{server.url}/v1/chat/completions", json=HELLO, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    health = server.health()
    assert health["model_server"]["restarts"] == restarts + 1
    assert health["model_server"]["pid"] != pid
    assert "signal 9" in health["model_server"]["last_error"]
    assert not psutil.pid_exists(pid)


def test_stream_gets_an_error_event_when_the_model_server_is_killed(server: Server) -> None:
    body = HELLO | {"stream": True, "max_tokens": 1500, "ignore_eos": True, "session_id": "killed"}
    with requests.post(f"{server.url}/v1/chat/completions", json=body, stream=True, timeout=60) as answer:
        pieces = answer.iter_content(None)
        received = next(pieces) + next(pieces)
        _kill(server)
        received += b"".join(pieces)
    last = received.strip().split(b"\n\n")[-1]
    assert_error_shape(orjson.loads(last.removeprefix(b"data: ")), code="model_server_error")
    assert b"[DONE]" not in received
    stored = requests.get(f"{server.url}/v1/conversations/killed", timeout=10).json()["messages"]
    assert [message["status"] for message in stored] == ["complete", "interrupted"]
    assert requests.post(f"{server.url}/v1/chat/completions", json=HELLO, timeout=60).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_request_has_used_what_was_read_of_its_prompt_when_the_model_server_was_killed(
    server: Server, stream: bool
) -> None:
    _wait_until_ready(server)
    body = {"messages": [{"role": "user", "content": f"{stream} " + "word " * 1500}], "max_tokens": 5, "stream": stream}
    with send_request(server, "/v1/chat/completions", body, f"X-Request-Id: killed-{stream}") as connection:
        wait_for(lambda: most_processed(server) >= 64, "a part of the prompt")
        _kill(server)
        assert connection.recv(65536).startswith(b"HTTP/1.1 502")
    usage = recorded_usage(server, f"killed-{stream}")
    assert usage["error_code"] == "model_server_error"
    assert 64 <= usage["prompt_tokens"] - usage["cached_tokens"] < 1500
    assert usage["completion_tokens"] == 0
    _wait_until_ready(server)


def test_health_is_503_while_the_model_server_restarts(server: Server) -> None:
    _kill(server)

    def unavailable() -> bool:
        answer = requests.get(f"{server.url}/health", timeout=10)
        return answer.status_code == 503 and answer.json()["status"] == "unavailable"

    wait_for(unavailable, "a health of 503", 5)
    _wait_until_ready(server)
