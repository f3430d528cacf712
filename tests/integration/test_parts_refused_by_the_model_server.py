"""What only the model server refuses names the part of the request that its client sent, in every API."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.support.processes import Server

IMAGE = "data:image/png;base64,iVBORw0KGgo="
LONG = "word " * 4000
BAD_SCHEMA = {"type": "object", "properties": {"a": {"type": "foo"}}}
ANTHROPIC_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
RESPONSES_TOOLS = [{"type": "function", "name": name, "parameters": BAD_SCHEMA} for name in "fg"]


def _messages(*content: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "Hi"}, {"role": "user", "content": list(content)}]


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        (
            "/v1/responses",
            {"input": _messages({"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": IMAGE})},
            "unsupported_value",
            "input[1].content[1]",
        ),
        (
            "/v1/responses/input_tokens",
            {"input": _messages({"type": "input_image", "image_url": IMAGE})},
            "unsupported_value",
            "input[1].content[0]",
        ),
        ("/v1/responses", {"input": LONG}, "context_length_exceeded", "input"),
        (
            "/v1/responses",
            {"input": [{"type": "message", "role": "user", "content": "Hi"}]}
            | {"text": {"format": {"type": "json_schema", "name": "n", "schema": BAD_SCHEMA}}},
            "invalid_json_schema",
            "text.format.schema.properties.a.type",
        ),
        (
            "/v1/responses",
            {
                "input": [
                    {"role": "user", "content": "Hi"},
                    {"type": "function_call_output", "call_id": "x", "output": ""},
                ]
            },
            None,
            "input[1].call_id",
        ),
        ("/v1/completions", {"prompt": ["Hi", LONG]}, "context_length_exceeded", "prompt"),
        ("/v1/completions", {"prompt": [[1, 2], [1, 9_999_999]]}, "invalid_value", "prompt[1][1]"),
        ("/v1/completions", {"prompt": [[1, 9_999_999]], "echo": True}, "invalid_value", "prompt[0][1]"),
        ("/completion", {"prompt": [1, 9_999_999]}, "invalid_value", "prompt[1]"),
        ("/detokenize", {"tokens": [1, 9_999_999]}, "invalid_value", "tokens[1]"),
        (
            "/apply-template",
            {"messages": _messages({"type": "file", "file": {}})},
            "unsupported_value",
            "messages[1].content[0]",
        ),
        (
            "/v1/messages/count_tokens",
            {"messages": _messages({"type": "tool_result", "tool_use_id": "1", "content": [ANTHROPIC_IMAGE]})},
            "unsupported_value",
            "messages[1].content[0].content[0]",
        ),
    ],
)
def test_refusal_of_the_model_server_names_the_client_s_part(
    server: Server, http: requests.Session, path: str, body: dict[str, Any], code: str | None, param: str
) -> None:
    answer = http.post(f"{server.url}{path}", json=body, timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


def test_message_of_anthropic_begins_with_the_part(server: Server, http: requests.Session) -> None:
    body = {"max_tokens": 4, "messages": _messages({"type": "text", "text": "?"}, ANTHROPIC_IMAGE)}
    answer = http.post(f"{server.url}/v1/messages", json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("messages.1.content.1: Unsupported value")


def test_duplicate_key_is_named_by_its_path(server: Server, http: requests.Session) -> None:
    body = '{"messages": [{"role": "user", "content": "a", "content": "b"}]}'
    answer = http.post(f"{server.url}/v1/chat/completions", data=body, timeout=60)
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("duplicate_key", "messages[0].content")
