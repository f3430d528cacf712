"""What a start says about a model server of others that does not answer, and when it says that requests are served."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import requests

from tests.support.misbehaving_server import misbehaving_server
from tests.support.processes import START_SECONDS, free_port, launch_server, wait_for

CHAT = {"messages": [{"role": "user", "content": "Hello?"}], "model": "fine", "max_tokens": 2}


@pytest.mark.slow
def test_dead_model_server_url_is_said_at_once_with_its_cause_until_it_answers(data_dir: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with launch_server(data_dir, MODEL_SERVER_URL=f"http://Ann:word@127.0.0.1:{port}/v1") as server:
        wait_for(lambda: "is not ready" in server.log(), "the line that says why it is not ready", START_SECONDS)
        assert (
            server.log().count(
                f"Mistral Local API on {server.url} is not ready: MODEL_SERVER_URL: {url}: "
                "The model server does not answer: connection refused. Requests get 503 until it is.\n"
            )
            == 1
        )
        assert "ready on" not in server.log()

        began = time.monotonic()
        answer = requests.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=30)
        assert time.monotonic() - began < 5
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert error["code"] == "model_unavailable"
        assert error["message"] == "The model server does not answer: connection refused."
        health = server.health()
        assert health["status"] == "unavailable"
        assert health["model_server"]["last_error"] == "The model server does not answer: connection refused."

        with misbehaving_server(port=port):
            wait_for(lambda: f"ready on {server.url}" in server.log(), "the ready line", 20)
            assert requests.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=30).status_code == 200
        assert server.stop() == 0
        assert "word" not in server.log()
        assert "Traceback" not in server.log()
