"""Responses in the background when their server ends: each is found again, and says that it failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import requests

from tests.support.processes import Server, running_server, wait_for

# The first two find a slot; the others wait, the last of them for a session that is not there yet.
SETTINGS = {"CONTEXT_SIZE": "4096", "PARALLEL": "2", "SHUTDOWN_SECONDS": "0"}
SHUT_DOWN, KILLED = "The server is shutting down.", "The server ended before the response was complete."
COUNT = 4


def _start(server: Server, session_id: str) -> list[str]:
    body = {"input": "Count.", "background": True, "max_output_tokens": 1500, "ignore_eos": True}
    sessions: list[dict[str, Any]] = [{}] * (COUNT - 1) + [{"session_id": session_id}]
    url = f"{server.url}/v1/responses"
    ids = [requests.post(url, json=body | session, timeout=20).json()["id"] for session in sessions]
    wait_for(lambda: server.slots_busy() == 2, "two busy slots")
    return ids


def _ends(server: Server, ids: list[str]) -> list[tuple[str, str]]:
    """The status of each response and its error; empty until all of them can be found."""
    answers = [requests.get(f"{server.url}/v1/responses/{each}", timeout=20) for each in ids]
    if any(answer.status_code != 200 for answer in answers):
        return []
    return [(body["status"], body["error"]["message"]) for body in (answer.json() for answer in answers)]


def test_background_response_is_failed_after_its_server_stopped_or_was_killed(data_dir: Path) -> None:
    with running_server(data_dir, **SETTINGS) as server:
        stopped = _start(server, "stopped")
        begun = time.monotonic()
        assert server.stop() == 0
        # Those that wait do not go on asking a model server that is gone.
        assert time.monotonic() - begun < 10
        assert "not being recorded" not in server.log()
    with running_server(data_dir, **SETTINGS) as server:
        assert wait_for(lambda: _ends(server, stopped), "the responses") == [("failed", SHUT_DOWN)] * COUNT
        killed = _start(server, "killed")
        server.process.kill()
        server.process.wait(timeout=10)
    with running_server(data_dir, **SETTINGS) as server:
        assert wait_for(lambda: _ends(server, killed), "the responses") == [("failed", KILLED)] * COUNT
