"""Whatever the model server does, the client gets a clear error in time, and the record contains it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.misbehaving_server import MODEL_NAMES, misbehaving_stack
from tests.support.processes import Server
from tests.support.recorded_usage import recorded_usage


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The stack in front of a model server that misbehaves."""
    with misbehaving_stack() as running:
        yield running


def _ask(server: Server, model: str, **more: Any) -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "session_id": model, **more}
    return requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)


def test_external_engine_is_used_with_its_own_models(server: Server) -> None:
    answer = _ask(server, "fine")
    assert answer.json()["choices"][0]["message"]["content"] == "fine"
    assert [model["id"] for model in requests.get(f"{server.url}/v1/models", timeout=10).json()["data"]] == list(
        MODEL_NAMES
    )
    health = server.health()
    assert (health["status"], health["model_server"]["engine"]) == ("ok", "external")
    assert health["model_server"]["slots"] is None


def test_request_is_retried_while_a_dying_model_server_drops_connections(server: Server) -> None:
    answer = _ask(server, "dying")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "fine"


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("silent", 504, "model_timeout"),
        ("cut", 502, "model_server_error"),
        ("hangs-up", 502, "model_server_error"),
        ("garbage", 502, "model_server_error"),
        ("breaks-500", 502, "model_server_error"),
        ("loading", 503, "model_loading"),
    ],
)
def test_whole_response_failure_is_reported_by_status_and_code_and_stored(
    server: Server, model: str, status: int, code: str
) -> None:
    answer = _ask(server, model)
    assert answer.status_code == status
    assert_error_shape(answer.json(), code=code)
    assert answer.headers["X-Error-Source"] == "model-server"
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert [(message["role"], message["status"]) for message in server.stored_messages(model)] == [("user", "failed")]


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("silent", 504, "model_timeout"),
        ("cut", 502, "model_server_error"),
        ("garbage", 502, "model_server_error"),
        ("breaks-500", 502, "model_server_error"),
        ("fine", 502, "model_server_error"),  # a chat completion is no embeddings response
    ],
)
def test_embeddings_failure_is_reported_by_status_and_code(server: Server, model: str, status: int, code: str) -> None:
    answer = requests.post(f"{server.url}/v1/embeddings", json={"model": model, "input": ["a", "b"]}, timeout=20)
    assert answer.status_code == status
    assert_error_shape(answer.json(), code=code)
    assert answer.headers["X-Error-Source"] == "model-server"


def test_embeddings_and_rerank_are_not_supported_where_the_engine_lacks_the_url(server: Server) -> None:
    for path, body in (("embeddings", {"input": "a"}), ("rerank", {"query": "q", "documents": ["d"]})):
        answer = requests.post(f"{server.url}/v1/{path}", json=body | {"model": "no-such-url"}, timeout=20)
        assert answer.status_code == 400
        assert_error_shape(answer.json(), code="not_supported", param="model")


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("silent-stream", "model_timeout"),
        ("cut-stream", "model_server_error"),
        ("no-done", "model_server_error"),
        ("error-event", "model_server_error"),
    ],
)
def test_stream_failure_ends_with_an_error_event_and_the_text_is_stored(server: Server, model: str, code: str) -> None:
    answer = _ask(server, model, stream=True)
    assert answer.status_code == 200
    events = [event for event in answer.content.split(b"\n\n") if event]
    assert b'"one"' in events[0]
    assert_error_shape(orjson.loads(events[-1].removeprefix(b"data: ")), code=code)
    stored = server.stored_messages(model)
    assert [(message["content"], message["status"]) for message in stored] == [
        ("Hi", "complete"),
        ("one", "interrupted"),
    ]


@pytest.mark.parametrize(("path", "more"), [("/v1/messages", {"max_tokens": 9}), ("/v1/responses", {"input": "Hi"})])
def test_failure_after_progress_reports_that_the_dialect_lacks_is_an_http_error(
    server: Server, path: str, more: dict[str, Any]
) -> None:
    body = {"model": "progress-error", "stream": True, "return_progress": True, **more}
    if path == "/v1/messages":
        body["messages"] = [{"role": "user", "content": "Hi"}]
    answer = requests.post(server.url + path, json=body, timeout=20)
    assert answer.status_code == 502
    assert answer.headers["Content-Type"] == "application/json"


def test_response_of_progress_reports_alone_has_one_empty_choice(server: Server) -> None:
    with _ask(server, "progress-done", stream=True) as streamed:
        events = [event for event in streamed.content.split(b"\n\n") if event]
    assert orjson.loads(events[0][6:])["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}
    ]
    assert events[1:] == [b"data: [DONE]"]


def test_figures_that_are_no_numbers_do_not_count(server: Server) -> None:
    with _ask(server, "odd-usage", stream=True) as answer:
        assert answer.content.endswith(b"data: [DONE]\n\n")
    (message,) = server.stored_messages("odd-usage")[1:]
    assert (message["content"], message["status"]) == ("one", "complete")
    # The one delta is a better count than none.
    assert message["usage"] == {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("model", "status"), [("progress-error", 502), ("silent-progress", 504)])
def test_failed_request_has_used_the_part_of_its_prompt_that_was_read(
    server: Server, model: str, status: int, stream: bool
) -> None:
    body = {"model": model, "prompt": "Hi", "stream": stream}
    request_id = f"{model}-{stream}"
    answer = requests.post(f"{server.url}/completion", json=body, headers={"X-Request-Id": request_id}, timeout=20)
    assert answer.status_code == status
    usage = recorded_usage(server, request_id)
    assert (usage["prompt_tokens"], usage["cached_tokens"], usage["completion_tokens"]) == (4, 0, 0)


def test_background_response_is_continued_as_soon_as_its_end_was_seen(server: Server) -> None:
    url, body = f"{server.url}/v1/responses", {"model": "late-end", "input": "Hi"}
    with requests.post(url, json=body | {"background": True, "stream": True}, stream=True, timeout=20) as followed:
        lines = followed.iter_lines()
        data = next(orjson.loads(next(lines)[6:]) for line in lines if line == b"event: response.completed")
        continued = requests.post(url, json=body | {"previous_response_id": data["response"]["id"]}, timeout=20)
    assert continued.status_code == 200, continued.text


def test_failure_before_the_first_chunk_of_a_stream_is_an_http_error(server: Server) -> None:
    answer = _ask(server, "breaks-500", stream=True)
    assert answer.status_code == 502
    assert_error_shape(answer.json(), code="model_server_error")
