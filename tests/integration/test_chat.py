"""Chat completions on the real engine."""

import re
from typing import Any

import orjson
import pytest
import requests

from tests.support.processes import Server

HELLO = [{"role": "user", "content": "Hello, how are you?"}]


def test_chat_completion_has_text_usage_and_a_session_id(server: Server, http: requests.Session) -> None:
    request = {"messages": HELLO, "max_tokens": 8, "ignore_eos": True, "temperature": 0}
    answer = http.post(f"{server.url}/v1/chat/completions", json=request, timeout=60)
    body = answer.json()
    assert answer.status_code == 200
    assert body["choices"][0]["message"]["content"].strip()
    assert body["usage"]["completion_tokens"] == 8
    assert body["session_id"] == answer.headers["X-Session-Id"]
    assert re.fullmatch(r"sess_[0-9a-f]{32}", body["session_id"])


def test_chat_stream_is_relayed_event_by_event(server: Server, http: requests.Session, session_id: str) -> None:
    body = {
        "messages": HELLO,
        "max_tokens": 6,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "session_id": session_id,
    }
    with http.post(f"{server.url}/v1/chat/completions", json=body, stream=True, timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Session-Id"] == session_id
        events = [line for line in answer.iter_lines() if line]
    assert events[-1] == b"data: [DONE]"
    chunks = [orjson.loads(event[6:]) for event in events[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text.strip()
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert not any("usage" in chunk and chunk["usage"] for chunk in chunks)


def test_chat_stream_ends_with_usage_on_request(server: Server, http: requests.Session) -> None:
    body = {"messages": HELLO, "max_tokens": 3, "ignore_eos": True, "stream": True}
    body["stream_options"] = {"include_usage": True}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    last = [line for line in answer.content.split(b"\n\n") if line][-2]
    chunk = orjson.loads(last[6:])
    assert chunk["choices"] == []
    assert chunk["usage"]["completion_tokens"] == 3


def _chunks(answer: requests.Response) -> list[Any]:
    return [orjson.loads(event[6:]) for event in answer.content.split(b"\n\n") if event.startswith(b"data: {")]


@pytest.mark.parametrize("asked", [False, True])
def test_chat_stream_contains_prompt_progress_only_on_request(
    server: Server, http: requests.Session, asked: bool
) -> None:
    prompt = [{"role": "user", "content": f"Progress {asked}. " * 60}]
    body = {"messages": prompt, "max_tokens": 2, "ignore_eos": True, "stream": True, "return_progress": asked}
    chunks = _chunks(http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60))
    assert any("prompt_progress" in chunk for chunk in chunks) is asked
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize(
    "special",
    [
        {"messages": [{"role": "user", "content": "Several batches of prompt. " * 30}]},
        # llama.cpp itself omits the role where the first token is half a character.
        {"messages": HELLO, "grammar": 'root ::= "\U0001f600"'},
        {"messages": HELLO, "grammar": 'root ::= ""'},
    ],
    ids=["long prompt", "half a character", "no text"],
)
def test_chat_stream_names_the_role_only_in_its_first_chunk(
    server: Server, http: requests.Session, special: dict[str, Any]
) -> None:
    body = {"max_tokens": 8, "stream": True, **special}
    chunks = _chunks(http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60))
    roles = [chunk["choices"][0]["delta"].get("role") for chunk in chunks]
    assert roles == ["assistant"] + [None] * (len(chunks) - 1)


def test_log_probabilities_are_the_same_streamed_and_whole(server: Server, http: requests.Session) -> None:
    body = {"messages": HELLO, "max_tokens": 4, "ignore_eos": True, "temperature": 0, "logprobs": True}
    url = f"{server.url}/v1/chat/completions"
    whole = http.post(url, json=body | {"top_logprobs": 2}, timeout=60).json()["choices"][0]["logprobs"]["content"]
    chunks = _chunks(http.post(url, json=body | {"top_logprobs": 2, "stream": True}, timeout=60))
    streamed = [
        entry
        for chunk in chunks
        for choice in chunk["choices"]
        for entry in (choice.get("logprobs") or {}).get("content") or []
    ]
    assert [entry["token"] for entry in whole] == [entry["token"] for entry in streamed]
    assert [len(entry["top_logprobs"]) for entry in whole] == [2] * 4


def test_two_choices_are_returned_and_the_first_is_recorded(
    server: Server, http: requests.Session, session_id: str
) -> None:
    body = {"messages": HELLO, "max_tokens": 3, "ignore_eos": True, "n": 2, "session_id": session_id}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 6
    read = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    assert read["messages"][-1]["content"] == answer["choices"][0]["message"]["content"]
    listed = http.get(f"{server.url}/v1/conversations", params={"limit": "1"}, timeout=10).json()["data"][0]
    assert (listed["session_id"], listed["message_count"]) == (session_id, 3)


def test_unknown_chat_fields_pass_and_null_means_absent(server: Server, http: requests.Session) -> None:
    body = {"messages": HELLO, "max_tokens": 2, "temperature": None, "tools": None, "prediction": {"type": "x"}}
    assert http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200


def test_chat_completion_follows_a_json_schema(server: Server, http: requests.Session) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    body = {
        "messages": [{"role": "user", "content": "Give a number."}],
        "max_tokens": 60,
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}},
    }
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert isinstance(orjson.loads(answer["choices"][0]["message"]["content"])["n"], int)


def test_client_request_id_is_returned(server: Server, http: requests.Session) -> None:
    body = {"messages": HELLO, "max_tokens": 1}
    headers = {"X-Request-Id": "my-request-1"}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert answer.headers["X-Request-Id"] == "my-request-1"
