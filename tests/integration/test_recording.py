"""What exchanges store in PostgreSQL, and how it is read back."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg2.extensions
import pytest
import requests

from tests.support.processes import Server, wait_for

HELLO = [{"role": "user", "content": "Hello!"}]


def _usage_row(database: psycopg2.extensions.cursor, request_id: str) -> dict[str, Any]:
    def found() -> Any:
        database.execute(
            "SELECT * FROM api_usage WHERE request_id::text = %s OR client_request_id = %s", (request_id, request_id)
        )
        return database.fetchone()

    row: dict[str, Any] = wait_for(found, f"the usage row of {request_id}")
    return row


@pytest.mark.parametrize("stream", [False, True])
def test_exchange_stores_its_messages_and_a_complete_usage_row(
    server: Server, http: requests.Session, database: psycopg2.extensions.cursor, session_id: str, stream: bool
) -> None:
    body = {
        "messages": HELLO,
        "max_tokens": 6,
        "ignore_eos": True,
        "temperature": 0,
        "session_id": session_id,
        "stream": stream,
    }
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    row = _usage_row(database, answer.headers["X-Request-Id"])
    assert (row["status"], row["endpoint"], row["stream"]) == (200, "/v1/chat/completions", stream)
    assert row["model"] == "SmolLM2-135M-Instruct.Q4_1"
    assert row["session_id"] == session_id
    assert row["completion_tokens"] == 6
    assert row["prompt_tokens"] > 10
    assert row["cached_tokens"] >= 0
    assert 0 < row["time_to_first_token_ms"] < row["latency_ms"]
    assert row["tokens_per_second"] > 0
    assert row["finish_reason"] == "length"
    assert row["error_code"] is None
    assert row["client_address"] == "127.0.0.1"
    database.execute(
        "SELECT m.role, m.content, m.status FROM messages m JOIN conversations c ON c.id = m.conversation_id "
        "WHERE c.session_id = %s ORDER BY m.sequence",
        (session_id,),
    )
    first, second = (dict(row) for row in database.fetchall())
    assert (first["role"], first["content"]) == ("user", "Hello!")
    assert (second["role"], second["status"]) == ("assistant", "complete")
    assert second["content"]


def test_usage_row_is_in_the_partition_of_its_month(
    server: Server, http: requests.Session, database: psycopg2.extensions.cursor
) -> None:
    answer = http.post(f"{server.url}/v1/chat/completions", json={"messages": HELLO, "max_tokens": 1}, timeout=60)
    row = _usage_row(database, answer.headers["X-Request-Id"])
    database.execute(
        "SELECT tableoid::regclass::text AS part FROM api_usage WHERE request_id = %s", (row["request_id"],)
    )
    found = database.fetchone()
    assert found is not None
    assert dict(found)["part"] == f"api_usage_{row['created_at']:%Y_%m}"


def test_refused_request_stores_a_usage_row_with_its_error_code(
    server: Server, http: requests.Session, database: psycopg2.extensions.cursor
) -> None:
    answer = http.post(f"{server.url}/v1/chat/completions", json={"messages": HELLO, "top_p": 2}, timeout=10)
    row = _usage_row(database, answer.headers["X-Request-Id"])
    assert (row["status"], row["error_code"]) == (400, "decimal_above_max_value")


def test_client_request_id_is_stored_with_usage_and_message(
    server: Server, http: requests.Session, database: psycopg2.extensions.cursor, session_id: str
) -> None:
    given = f"given-{session_id}"
    body = {"messages": HELLO, "max_tokens": 1, "session_id": session_id}
    http.post(f"{server.url}/v1/chat/completions", json=body, headers={"X-Request-Id": given}, timeout=60)
    assert _usage_row(database, given)["client_request_id"] == given
    message = server.stored_messages(session_id)[0]
    assert message["request_id"] == given


def test_conversation_is_readable_at_once_with_the_oldest_message_first(
    server: Server, http: requests.Session, session_id: str
) -> None:
    for turn in range(3):
        body = {
            "messages": [{"role": "user", "content": f"turn {turn}"}],
            "max_tokens": 2,
            "session_id": session_id,
            "stream": turn == 1,
        }
        answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        read = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
        assert read["messages"][-2]["content"] == f"turn {turn}"
    assert read["title"] == "turn 0"
    assert [message["role"] for message in read["messages"]] == ["user", "assistant"] * 3
    assert read["has_more"] is False


def test_conversation_messages_are_paginated(server: Server, http: requests.Session, session_id: str) -> None:
    for turn in range(3):
        body = {"messages": [{"role": "user", "content": str(turn)}], "max_tokens": 1, "session_id": session_id}
        http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    url = f"{server.url}/v1/conversations/{session_id}"
    newest = http.get(url, params={"limit": "2"}, timeout=10).json()
    assert [message["role"] for message in newest["messages"]] == ["user", "assistant"]
    assert newest["messages"][0]["content"] == "2"
    assert newest["has_more"] is True
    older = http.get(url, params={"limit": "10", "before": newest["first_id"]}, timeout=10).json()
    assert [message["content"] for message in older["messages"]][0::2] == ["0", "1"]
    assert older["has_more"] is False
    newer = http.get(url, params={"limit": "2", "after": older["first_id"]}, timeout=10).json()
    assert newer["messages"][1]["content"] == "1"
    assert newer["has_more"] is True


def test_whole_history_sent_again_stores_only_new_messages(
    server: Server, http: requests.Session, session_id: str
) -> None:
    messages: list[dict[str, str]] = [{"role": "system", "content": "Be brief."}]
    for turn in range(3):
        messages.append({"role": "user", "content": f"question {turn}"})
        body = {"messages": messages, "max_tokens": 3, "session_id": session_id}
        answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
    read = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    stored = [{"role": message["role"], "content": message["content"]} for message in read["messages"]]
    assert stored == messages


def test_changed_earlier_message_starts_a_branch(server: Server, http: requests.Session, session_id: str) -> None:
    url = f"{server.url}/v1/chat/completions"
    first = http.post(url, json={"messages": HELLO, "max_tokens": 2, "session_id": session_id}, timeout=60).json()
    history = [*HELLO, {"role": "assistant", "content": first["choices"][0]["message"]["content"]}]
    # A word that nothing else on this server has, not even inside of a longer one.
    left = uuid4().hex
    for question in (f"left {left}?", "right?"):
        body = {
            "messages": [*history, {"role": "user", "content": question}],
            "max_tokens": 2,
            "session_id": session_id,
        }
        http.post(url, json=body, timeout=60)
    read = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    assert [message["content"] for message in read["messages"] if message["role"] == "user"] == ["Hello!", "right?"]
    listed = http.get(f"{server.url}/v1/conversations", params={"q": f"{left}?"}, timeout=10).json()
    assert [each["session_id"] for each in listed["data"]] == [session_id]
    assert listed["data"][0]["message_count"] == 6


def test_conversations_are_listed_searched_and_deleted(
    server: Server, http: requests.Session, session_id: str, database: psycopg2.extensions.cursor
) -> None:
    body = {"messages": [{"role": "user", "content": "A Quagga, 100%_sure"}], "max_tokens": 1, "session_id": session_id}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10)
    for words in ("quagga", "100%_sure"):
        found = http.get(f"{server.url}/v1/conversations", params={"q": words}, timeout=10).json()
        assert [each["session_id"] for each in found["data"]] == [session_id]
    newest = http.get(f"{server.url}/v1/conversations", params={"limit": "1"}, timeout=10).json()
    assert newest["data"][0]["session_id"] == session_id
    deleted = http.delete(f"{server.url}/v1/conversations/{session_id}", timeout=10)
    assert deleted.json() == {"id": session_id, "object": "conversation.deleted", "deleted": True}
    assert http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).status_code == 404
    assert _usage_row(database, answer.headers["X-Request-Id"])["completion_tokens"] == 1


def test_list_of_conversations_is_paginated(server: Server, http: requests.Session, session_id: str) -> None:
    names = [f"{session_id}:{number}" for number in range(3)]
    for name in names:
        body = {"messages": HELLO, "max_tokens": 1, "session_id": name}
        http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
        http.get(f"{server.url}/v1/conversations/{name}", timeout=10)
    first = http.get(f"{server.url}/v1/conversations", params={"limit": "2"}, timeout=10).json()
    second = http.get(
        f"{server.url}/v1/conversations", params={"limit": "1", "after": first["last_id"]}, timeout=10
    ).json()
    assert [each["session_id"] for each in first["data"] + second["data"]] == names[::-1]


def test_nul_characters_are_replaced_in_stored_text(server: Server, http: requests.Session, session_id: str) -> None:
    body = {"messages": [{"role": "user", "content": "nul \0 here"}], "max_tokens": 1, "session_id": session_id}
    assert http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    read = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    assert read["messages"][0]["content"] == "nul \ufffd here"


@pytest.mark.parametrize("stream", [False, True])
def test_empty_answer_is_stored_as_complete(
    server: Server, http: requests.Session, session_id: str, stream: bool
) -> None:
    said = {"messages": HELLO, "session_id": session_id, "stream": stream, "grammar": 'root ::= ""'}
    answer = http.post(f"{server.url}/v1/chat/completions", json=said, timeout=60)
    assert answer.status_code == 200, answer.text
    read = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    assert [(message["role"], message["content"]) for message in read["messages"]] == [
        ("user", "Hello!"),
        ("assistant", ""),
    ]
    assert read["messages"][1]["status"] == "complete"


@pytest.mark.parametrize("stream", [False, True])
def test_request_with_store_false_stores_usage_without_text(
    server: Server, http: requests.Session, database: psycopg2.extensions.cursor, session_id: str, stream: bool
) -> None:
    body = {"messages": HELLO, "max_tokens": 2, "ignore_eos": True, "session_id": session_id, "stream": stream}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body | {"store": False}, timeout=60)
    assert _usage_row(database, answer.headers["X-Request-Id"])["completion_tokens"] == 2
    assert http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).status_code == 404
