"""``PATCH /v1/conversations/{session_id}``."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server


@pytest.fixture
def url(server: Server, http: requests.Session, session_id: str) -> str:
    """The URL of an existing conversation."""
    body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1, "session_id": session_id}
    assert http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    return f"{server.url}/v1/conversations/{session_id}"


def test_title_and_metadata_can_be_changed_right_after_a_chat(
    http: requests.Session, url: str, session_id: str
) -> None:
    changed = http.patch(url, json={"title": "A greeting", "metadata": {"topic": "manners"}}, timeout=10)
    assert changed.status_code == 200, changed.text
    body = changed.json()
    assert (body["object"], body["session_id"], body["message_count"]) == ("conversation", session_id, 2)
    assert (body["title"], body["metadata"]) == ("A greeting", {"topic": "manners"})
    read = http.get(url, timeout=10).json()
    assert (read["title"], read["metadata"]) == ("A greeting", {"topic": "manners"})
    assert len(read["messages"]) == 2


def test_update_keeps_absent_fields_and_null_clears_a_field(http: requests.Session, url: str) -> None:
    http.patch(url, json={"title": "A greeting", "metadata": {"topic": "manners"}}, timeout=10)
    assert http.patch(url, json={"title": None}, timeout=10).json()["metadata"] == {"topic": "manners"}
    body = http.patch(url, json={"metadata": None}, timeout=10).json()
    assert (body["title"], body["metadata"]) == (None, {})


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({}, "missing_required_parameter", None),
        ([], "invalid_type", None),
        ({"title": 3}, "invalid_type", "title"),
        ({"title": ""}, "invalid_value", "title"),
        ({"title": "x" * 257}, "string_above_max_length", "title"),
        ({"title": "nul \0"}, "invalid_value", "title"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"metadata": {"a": "\0"}}, "invalid_value", "metadata"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "invalid_value", "metadata"),
        ({"title": "good", "messages": []}, "unknown_parameter", "messages"),
    ],
)
def test_bad_conversation_update_is_refused_and_changes_nothing(
    http: requests.Session, url: str, changes: Any, code: str, param: str | None
) -> None:
    answer = http.patch(url, json=changes, timeout=10)
    assert answer.status_code == 400, answer.text
    assert_error_shape(answer.json(), code=code, param=param)
    assert http.get(url, timeout=10).json()["title"] == "Hello!"


def test_update_of_an_unknown_conversation_is_not_found(server: Server, http: requests.Session) -> None:
    answer = http.patch(f"{server.url}/v1/conversations/nowhere", json={"title": "x"}, timeout=10)
    assert answer.status_code == 404
    assert_error_shape(answer.json(), code="not_found", param="session_id")
