"""What clients send that is not the textbook's is answered by the real engine, and recorded as what it means."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import brotli
import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
REFUSING = {"type": "refusal", "refusal": "No."}
HALF = "a\ud83d b\0"
CHAT, RESPONSES, MESSAGES, COMPLETIONS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions")
CONVERSATIONS = "/v1/conversations"


def _chat(*messages: dict[str, Any], **fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": [USER, *messages], "max_tokens": 1} | fields


def _answered(answer: dict[str, Any], **fields: Any) -> tuple[str, dict[str, Any]]:
    return _chat({"role": "assistant"} | answer, USER, **fields)


def _response(*items: dict[str, Any], **fields: Any) -> tuple[str, dict[str, Any]]:
    return RESPONSES, {"input": [USER, *items], "max_output_tokens": 1, "store": False} | fields


def _message(*messages: dict[str, Any], **fields: Any) -> tuple[str, dict[str, Any]]:
    return MESSAGES, {"messages": [USER, *messages], "max_tokens": 1} | fields


TOLERATED = [
    _answered({"content": None, "reasoning": "Hm."}),
    _answered({"content": None, "reasoning_content": "Hm."}),
    _answered({"content": None, "tool_calls": []}),
    _answered({"content": None, "id": "msg_1"}),
    _answered({"id": "msg_1"}),
    _answered({"content": []}),
    _answered({"content": [REFUSING]}),
    _answered({"content": [{"type": "text", "text": "Well"}, REFUSING]}),
    _answered({"content": [{"type": "output_text", "text": "Well", "annotations": []}]}),
    _answered({"content": None, "refusal": "No."}),
    _chat(CALLING, {"role": "tool", "tool_call_id": "c1", "content": None}),
    _chat(CALLING, {"role": "tool", "tool_call_id": "c1", "content": []}),
    _chat(CALLING, {"role": "tool", "tool_call_id": "c1"}, truncation="auto"),
    _chat({"role": "assistant"}),
    _chat(model=""),
    _chat(max_tokens=1.0, seed=5.0, n=1.0, top_k=40.0),
    _chat(stop=""),
    _chat(stop=[""]),
    _chat(logprobs=False, top_logprobs=0),
    _chat(logprobs=True, top_logprobs=0),
    _chat(unknown=10**30),
    _chat({"role": "assistant", "content": HALF}, USER),
    (COMPLETIONS, {"prompt": HALF, "max_tokens": 1.0, "stop": "", "model": "", "logprobs": False}),
    (COMPLETIONS, {"prompt": [1.0, 2.0], "max_tokens": 1}),
    ("/completion", {"prompt": ["a", 1.0], "n_predict": 1.0, "stop": ""}),
    ("/tokenize", {"content": HALF, "model": ""}),
    ("/apply-template", {"messages": [USER, {"role": "assistant", "content": [REFUSING]}, USER]}),
    _response(),
    _response({"role": "assistant", "content": None}, USER, model=""),
    _response({"type": "message", "role": "assistant", "id": "msg_1"}, USER),
    _response({"role": "assistant", "content": [REFUSING]}, USER),
    _response({"role": "assistant", "content": [{"type": "text", "text": "Well"}]}, USER, stop="", top_logprobs=0),
    _response(
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": None},
        max_output_tokens=1.0,
    ),
    (RESPONSES, {"input": HALF, "instructions": HALF, "max_output_tokens": 1}),
    ("/v1/responses/input_tokens", {"input": [USER, {"role": "assistant", "content": None}, USER]}),
    _message({"role": "assistant", "content": None}, USER, model="", stop_sequences=[""]),
    _message({"role": "assistant", "content": []}, USER, max_tokens=1.0),
    _message({"role": "assistant"}, {"role": "user", "content": HALF}),
    _message(
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": HALF}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": None}]},
    ),
    ("/v1/messages/count_tokens", {"messages": [USER, {"role": "assistant", "content": None}, USER], "model": ""}),
    (CONVERSATIONS, {"items": [{"role": "assistant", "content": None}, {"role": "assistant", "content": [REFUSING]}]}),
    (CONVERSATIONS, {"items": [{"role": "user", "content": HALF}]}),
]


@pytest.mark.parametrize(("path", "body"), TOLERATED, ids=lambda value: value if isinstance(value, str) else "")
def test_it_is_taken(server: Server, http: requests.Session, path: str, body: dict[str, Any]) -> None:
    answer = http.post(server.url + path, data=json.dumps(body), timeout=60)
    assert answer.status_code == 200, answer.text


def test_what_is_streamed_is_taken_too(server: Server, http: requests.Session) -> None:
    path, body = _answered({"content": [REFUSING], "reasoning": HALF}, stream=True, stop="", max_tokens=1.0)
    answer = http.post(server.url + path, data=json.dumps(body), timeout=60)
    assert answer.text.endswith("data: [DONE]\n\n")


def test_refusals_reach_the_model_as_text(server: Server, http: requests.Session) -> None:
    for refusal in ({"content": [REFUSING]}, {"content": None, "refusal": "No."}):
        body = {"messages": [USER, {"role": "assistant"} | refusal, USER]}
        prompt = http.post(f"{server.url}/apply-template", json=body, timeout=10).json()["prompt"]
        assert "assistant\nNo.<|im_end|>" in prompt


def test_half_a_surrogate_pair_is_recorded_as_the_replacement_character(
    server: Server, http: requests.Session, session_id: str
) -> None:
    body = {"messages": [{"role": "user", "content": HALF}], "max_tokens": 1, "session_id": session_id}
    sent = http.post(server.url + CHAT, data=json.dumps(body), timeout=60)
    assert sent.status_code == 200, sent.text
    assert server.stored_messages(session_id)[0]["content"] == "a\ufffd b\ufffd"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("5.5", "invalid_type"),
        ("1" * 30, "integer_above_max_value"),
        ("1e400", "invalid_value"),
        ("NaN", "invalid_value"),
    ],
)
@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        (CHAT, "max_tokens", {"messages": [USER]}),
        (RESPONSES, "max_output_tokens", {"input": "Hi"}),
        (MESSAGES, "n", {"messages": [USER], "max_tokens": 5}),
    ],
)
def test_a_number_that_is_no_integer_is_refused_in_our_words(
    server: Server, http: requests.Session, number: str, code: str, path: str, field: str, body: dict[str, Any]
) -> None:
    written = f'{json.dumps(body)[:-1]}, "{field}": {number}}}'
    answer = http.post(server.url + path, data=written, timeout=10)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (field, code)
    assert error["message"].removeprefix(f"{field}: ").startswith("Invalid")  # as Anthropic puts it


HELLO = json.dumps({"messages": [USER], "max_tokens": 1}).encode()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(HELLO)),
        ("deflate", zlib.compress(HELLO)),
        ("br", brotli.compress(HELLO)),
        ("gzip, br", brotli.compress(gzip.compress(HELLO))),
        ("identity", HELLO),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_compressed_requests_are_answered(server: Server, http: requests.Session, coding: str, body: bytes) -> None:
    answer = http.post(server.url + CHAT, data=body, headers={"Content-Encoding": coding}, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("coding", "body", "status", "code"),
    [
        ("compress", HELLO, 415, "unsupported_media_type"),
        ("gzip", HELLO, 400, None),
        ("gzip", gzip.compress(HELLO)[:-9], 400, None),
        ("gzip", gzip.compress(b'"' + bytes(21 << 20)), 413, "request_too_large"),
        ("br, gzip", gzip.compress(brotli.compress(bytes(21 << 20), quality=1)), 413, "request_too_large"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_compressed_requests_that_cannot_be_read_are_refused(
    server: Server, http: requests.Session, coding: str, body: bytes, status: int, code: str | None
) -> None:
    answer = http.post(server.url + CHAT, data=body, headers={"Content-Encoding": coding}, timeout=30)
    assert answer.status_code == status
    assert_error_shape(answer.json(), code=code)
    assert ("zstd" in answer.headers.get("Accept-Encoding", "")) is (status == 415)
    # The connection is still good.
    assert http.get(f"{server.url}/health/live", timeout=10).status_code == 200


def test_compressed_chunks_are_one_request(server: Server, http: requests.Session) -> None:
    body = gzip.compress(HELLO)
    headers = {"Content-Encoding": "gzip"}
    chunks = iter([body[:20], body[20:]])
    assert http.post(server.url + CHAT, data=chunks, headers=headers, timeout=60).status_code == 200


@pytest.mark.parametrize("slash", ["", "/"])
def test_paths_without_v1_and_with_a_slash_are_answered_as_the_originals(
    server: Server, http: requests.Session, slash: str
) -> None:
    url = server.url
    chat = http.post(f"{url}/chat/completions{slash}", data=HELLO, timeout=60, allow_redirects=False)
    assert (chat.status_code, chat.json()["object"]) == (200, "chat.completion")
    body = {"input": "Hi", "max_output_tokens": 1}
    made = http.post(f"{url}/responses{slash}", json=body, timeout=60, allow_redirects=False).json()
    found = http.get(f"{url}/responses/{made['id']}{slash}", timeout=10, allow_redirects=False).json()
    assert (made["object"], found["id"]) == ("response", made["id"])
    models = http.get(f"{url}/models{slash}", timeout=10, allow_redirects=False).json()
    assert models == http.get(f"{url}/v1/models", timeout=10).json()
    assert http.get(f"{url}/v1/health{slash}", timeout=10, allow_redirects=False).json()["status"] == "ok"
    embedding = http.post(f"{url}/embeddings{slash}", json={"input": "x"}, timeout=10, allow_redirects=False)
    assert_error_shape(embedding.json(), code="not_supported")
    # llama.cpp's own path keeps its meaning.
    own = http.post(f"{url}/completions{slash}", json={"prompt": "Hi", "n_predict": 1}, timeout=60)
    assert "content" in own.json()


def test_options_are_told_without_a_body(server: Server, http: requests.Session) -> None:
    for path in ("/", CHAT, f"{CHAT}/", "/v1/responses/resp_x", "/health", "/models"):
        answer = http.options(server.url + path, timeout=10)
        assert (answer.status_code, answer.content) == (204, b"")
        assert "OPTIONS" in answer.headers["Allow"]
    assert http.options(f"{server.url}/v1/nothing", timeout=10).status_code == 404
