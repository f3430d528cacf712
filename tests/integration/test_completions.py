"""Legacy completions on the real engine."""

from typing import Any

import orjson
import pytest
import requests

from tests.running import Server


@pytest.mark.parametrize("prompt", ["The capital of France is", ["One", "Two"], [1, 2, 3], [[1, 2], [3]]])
def test_every_form_of_prompt_is_completed(server: Server, http: requests.Session, prompt: Any) -> None:
    body = {"prompt": prompt, "max_tokens": 2}
    answer = http.post(f"{server.url}/v1/completions", json=body, timeout=60).json()
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 if several else 1))


def test_without_a_limit_it_ends_after_16_tokens(server: Server, http: requests.Session) -> None:
    body = {"prompt": "Once upon a time", "ignore_eos": True}
    answer = http.post(f"{server.url}/v1/completions", json=body, timeout=60).json()
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_stream_of_text_is_relayed_and_recorded(server: Server, http: requests.Session, session_id: str) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 5, "ignore_eos": True, "stream": True, "session_id": session_id}
    answer = http.post(f"{server.url}/v1/completions", json=body, timeout=60)
    events = [event for event in answer.content.split(b"\n\n") if event]
    assert events[-1] == b"data: [DONE]"
    text = "".join(orjson.loads(event[6:])["choices"][0]["text"] for event in events[:-1])
    stored = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()["messages"]
    assert [(message["role"], message["content"]) for message in stored] == [
        ("user", "Once upon a time"),
        ("assistant", text),
    ]
    assert stored[1]["usage"]["completion_tokens"] == 5
