"""Bad requests get a 4xx in OpenAI's error shape that names the field, and never a 5xx."""

import socket
from http.client import HTTPResponse
from typing import Any

import orjson
import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server

HELLO = [{"role": "user", "content": "Hi"}]
IN_PARTS: dict[str, Any] = {"role": "user"}
TEXT = {"type": "text", "text": "What is this?"}
SECOND_PART = "messages[1].content[1]"
FILE = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg=="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
BAD_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"$ref": "#/nowhere"}, "strict": True}}
BAD_REFERENCE = "tools[0].function.parameters.$ref"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_required_parameter", "messages"),
        ([], 400, "invalid_type", None),
        ({"messages": []}, 400, "empty_array", "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
        ({"messages": HELLO, "temperature": 2.5}, 400, "decimal_above_max_value", "temperature"),
        ({"messages": HELLO, "model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"messages": HELLO, "tools": "x"}, 400, "invalid_type", "tools"),
        ({"messages": HELLO, "n": 129, "max_tokens": 1}, 400, "integer_above_max_value", "n"),
        ({"messages": HELLO, "use_history": "yes"}, 400, "invalid_type", "use_history"),
        ({"messages": HELLO, "truncation": "some"}, 400, "invalid_value", "truncation"),
        ({"messages": HELLO, "grammar": "root ::= ("}, 400, "invalid_value", "grammar"),
        ({"messages": [*HELLO, IN_PARTS | {"content": [TEXT, IMAGE]}]}, 400, "unsupported_value", SECOND_PART),
        ({"messages": [*HELLO, IN_PARTS | {"content": [TEXT, SOUND]}]}, 400, "unsupported_value", SECOND_PART),
        ({"messages": [*HELLO, IN_PARTS | {"content": [TEXT, FILE]}]}, 400, "unsupported_value", SECOND_PART),
        ({"messages": HELLO, "json_schema": {"$ref": "#/nowhere"}}, 400, "invalid_json_schema", "json_schema.$ref"),
        (
            {"messages": HELLO, "tools": [BAD_TOOL], "tool_choice": "required"},
            400,
            "invalid_json_schema",
            BAD_REFERENCE,
        ),
        ({"messages": [{"role": "user", "content": "word " * 4000}]}, 400, "context_length_exceeded", "messages"),
        ({"messages": HELLO, "stream": True, "temperature": -1}, 400, "decimal_below_min_value", "temperature"),
        ({"messages": HELLO, "stream": True, "grammar": "root ::= ("}, 400, "invalid_value", "grammar"),
        ({"messages": HELLO, "samplers": [1, 2]}, 400, "invalid_type", "samplers[0]"),
        ({"messages": HELLO, "dry_sequence_breakers": [1]}, 400, "invalid_type", "dry_sequence_breakers[0]"),
    ],
)
def test_bad_chat_request_is_refused_by_field(
    server: Server, http: requests.Session, body: Any, status: int, code: str, param: str | None
) -> None:
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    assert_error_shape(answer.json(), code=code, param=param)
    assert answer.headers["X-Error-Source"] in ("api", "model-server")
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"prompt": []}, "empty_array", "prompt"),
        ({"prompt": ["a", 1]}, "invalid_type", "prompt[1]"),
        ({"prompt": [99999999]}, "invalid_value", "prompt[0]"),
        ({"prompt": [99999999], "echo": True}, "invalid_value", "prompt[0]"),
        ({"prompt": "a", "suffix": "b"}, "unsupported_value", "suffix"),
        ({"prompt": "a", "use_history": True}, "not_supported", "use_history"),
        ({"prompt": "a", "truncation": "auto"}, "not_supported", "truncation"),
        ({"prompt": "a", "max_tokens": "many"}, "invalid_type", "max_tokens"),
    ],
)
def test_bad_completion_request_is_refused_by_field(
    server: Server, http: requests.Session, body: Any, code: str, param: str | None
) -> None:
    answer = http.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 400, answer.text
    assert_error_shape(answer.json(), code=code, param=param)


@pytest.mark.parametrize("content", [b"", b"{broken", b"\xff\xfe", b'{"messages": nan}', b'"\\ud800"'])
def test_request_body_that_is_not_json_is_refused(server: Server, http: requests.Session, content: bytes) -> None:
    answer = http.post(f"{server.url}/v1/chat/completions", data=content, timeout=10)
    assert answer.status_code == 400
    assert_error_shape(answer.json(), param=None)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("PUT", "/v1/models", 405, "method_not_supported"),
        ("PUT", "/v1/chat/completions", 405, "method_not_supported"),
        ("GET", "/v1/models/nope", 404, "model_not_found"),
        ("GET", "/v1/conversations/never-was", 404, "not_found"),
        ("DELETE", "/v1/conversations/never-was", 404, "not_found"),
        ("GET", "/v1/conversations/x?limit=0", 400, "integer_below_min_value"),
        ("GET", "/v1/conversations/x?limit=many", 400, "invalid_type"),
        ("GET", "/v1/conversations/x?before=1", 400, "invalid_value"),
        ("GET", "/v1/stats?hours=8761", 400, "integer_above_max_value"),
        ("GET", "/v1/conversations?after=never-was", 404, "not_found"),
    ],
)
def test_http_errors_of_the_api_have_the_openai_error_shape(
    server: Server, http: requests.Session, method: str, path: str, status: int, code: str
) -> None:
    answer = http.request(method, server.url + path, timeout=10)
    assert answer.status_code == status
    assert_error_shape(answer.json(), code=code)
    assert answer.headers["X-Error-Source"] == "api"
    assert answer.headers["X-Request-Id"]


def test_request_body_that_is_too_large_is_refused_with_413(server: Server, http: requests.Session) -> None:
    body = b'{"messages": "' + b"x" * (20 << 20) + b'"}'
    answer = http.post(f"{server.url}/v1/chat/completions", data=body, timeout=30)
    assert answer.status_code == 413
    assert_error_shape(answer.json(), code="request_too_large")


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}", 413, "request_too_large"),
        ("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: many", 400, None),
        ("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: pigeon", 400, None),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + "x" * 300_000, 431, None),
        ("no such thing as HTTP", 400, None),
    ],
)
def test_errors_of_the_web_server_have_the_openai_error_shape(
    server: Server, head: str, status: int, code: str | None
) -> None:
    with socket.create_connection(("127.0.0.1", server.api_port), timeout=10) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == status
        assert answer.headers["X-Error-Source"] == "api"
        assert answer.headers["X-Request-Id"]
        assert_error_shape(orjson.loads(answer.read()), code=code)


def test_request_that_fails_after_validation_names_the_session_that_stores_it(
    server: Server, http: requests.Session
) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 9000}]}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=30)
    assert_error_shape(answer.json(), code="context_length_exceeded")
    url = f"{server.url}/v1/conversations/{answer.headers['X-Session-Id']}"
    kept = http.get(url, timeout=10).json()["messages"]
    assert [message["status"] for message in kept] == ["failed"]


def test_refused_request_creates_no_conversation(server: Server, http: requests.Session, session_id: str) -> None:
    body = {"messages": HELLO, "session_id": session_id, "temperature": 9}
    assert http.post(f"{server.url}/v1/chat/completions", json=body, timeout=10).status_code == 400
    assert http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).status_code == 404
