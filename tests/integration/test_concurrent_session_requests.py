"""Many concurrent requests of one session."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.processes import Server

REQUESTS = 12


@pytest.mark.parametrize("stream", [False, True])
def test_concurrent_requests_of_one_session_are_each_stored_once(
    server: Server, http: requests.Session, session_id: str, stream: bool
) -> None:
    def ask(number: int) -> int:
        body = {
            "messages": [{"role": "user", "content": f"question {number}"}],
            "max_tokens": 2,
            "session_id": session_id,
            "stream": stream,
        }
        return requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code

    with ThreadPoolExecutor(REQUESTS) as clients:
        assert list(clients.map(ask, range(REQUESTS))) == [200] * REQUESTS
    read = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    asked = sorted(message["content"] for message in read["messages"] if message["role"] == "user")
    assert asked == sorted(f"question {number}" for number in range(REQUESTS))
    assert [message["role"] for message in read["messages"]] == ["user", "assistant"] * REQUESTS
