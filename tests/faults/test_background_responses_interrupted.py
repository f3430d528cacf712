"""Background responses whose server ends: each one is found again with the status failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.engine_counts import most_generated
from tests.support.processes import Server, running_server, wait_for
from tests.support.recorded_usage import recorded_usage

pytestmark = pytest.mark.slow

# The first two get a slot, a third is left free; the others wait, the last of them in a session that does not exist
# yet.
SETTINGS = {"CONTEXT_SIZE": "6144", "PARALLEL": "3", "SHUTDOWN_SECONDS": "0"}
SHUT_DOWN, KILLED = "The server is shutting down.", "The server ended before the response was complete."
COUNT = 4


def _start_responses(server: Server, session_id: str) -> list[str]:
    body = {"input": "Count.", "background": True, "max_output_tokens": 1500, "ignore_eos": True}
    sessions: list[dict[str, Any]] = [{}] * (COUNT - 1) + [{"session_id": session_id}]
    url = f"{server.url}/v1/responses"
    ids = [
        requests.post(url, json=body | session, headers={"X-Request-Id": f"{session_id}-{number}"}, timeout=20)
        for number, session in enumerate(sessions)
    ]
    # A checkpoint is written twice a second.
    wait_for(lambda: server.slots_busy() == 2 and most_generated(server) >= 30, "two slots that generate")
    return [answer.json()["id"] for answer in ids]


def _assert_counted(server: Server, session_id: str) -> None:
    """Check the usage of a response that was generated, and of one that waited."""
    generated, waited = (recorded_usage(server, f"{session_id}-{number}") for number in (0, COUNT - 1))
    assert generated["prompt_tokens"] == server.count_tokens([{"role": "user", "content": "Count."}])
    assert generated["completion_tokens"] > 5
    assert (waited["prompt_tokens"], waited["completion_tokens"]) == (None, None)


def _final_states(server: Server, ids: list[str]) -> list[tuple[str, str]]:
    """Return the status and error of each response; empty until all of them are found."""
    answers = [requests.get(f"{server.url}/v1/responses/{each}", timeout=20) for each in ids]
    if any(answer.status_code != 200 for answer in answers):
        return []
    return [(body["status"], body["error"]["message"]) for body in (answer.json() for answer in answers)]


def test_background_response_is_failed_after_its_server_stopped_or_was_killed(data_dir: Path) -> None:
    with running_server(data_dir, **SETTINGS) as server:
        stopped = _start_responses(server, "stopped")
        begun = time.monotonic()
        assert server.stop() == 0
        # Waiting responses do not retry on a model server that is stopped, which they would do for 30 s.
        assert time.monotonic() - begun < 25
        assert "not being recorded" not in server.log()
    with running_server(data_dir, **SETTINGS) as server:
        assert wait_for(lambda: _final_states(server, stopped), "the responses") == [("failed", SHUT_DOWN)] * COUNT
        _assert_counted(server, "stopped")
        killed = _start_responses(server, "killed")
        server.process.kill()
        server.process.wait(timeout=10)
    with running_server(data_dir, **SETTINGS) as server:
        assert wait_for(lambda: _final_states(server, killed), "the responses") == [("failed", KILLED)] * COUNT
        _assert_counted(server, "killed")
