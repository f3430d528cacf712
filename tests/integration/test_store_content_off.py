"""Without stored content no text of a request or an answer is anywhere: in no file, table or log."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
import requests
from psycopg2 import sql

from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.databases import open_cursor
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for

pytestmark = pytest.mark.slow

# The number of requests that :func:`_send_marker` sends.
REQUESTS = 12


def _files_with(folder: Path, marker: bytes) -> list[str]:
    return [str(file) for file in folder.rglob("*") if file.is_file() and marker in file.read_bytes()]


def _tables_with(url: str, marker: str) -> list[str]:
    found = []
    with open_cursor(url) as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
        for (table,) in cursor.fetchall():
            query = sql.SQL("SELECT count(*) FROM {} AS t WHERE strpos(t::text, %s) > 0").format(sql.Identifier(table))
            cursor.execute(query, (marker,))
            if cursor.fetchone() != (0,):
                found.append(table)
    return found


def _send_marker(server: Server, marker: str, **fields: Any) -> None:
    """Send requests of every kind with the marker in prompts, tools, refused parameters and the output itself."""
    url = f"{server.url}/v1/chat/completions"
    message = {"role": "user", "content": f"Repeat: {marker}"}
    grammar = f'root ::= "{marker}"'
    tool = {"type": "function", "function": {"name": "f", "description": marker}}
    bodies: list[dict[str, Any]] = [
        {"messages": [message], "grammar": grammar},
        {"messages": [message], "grammar": grammar, "stream": True},
        {"messages": [message], "tools": [tool], "max_tokens": 2},
        {"messages": [message], "temperature": marker},
        {"messages": [message, {"role": "tool", "content": "x", "tool_call_id": marker}], "max_tokens": 1},
        {"messages": [message] * 800, "max_tokens": 1},
        {"messages": [message], "max_tokens": 1, "store": True, "metadata": {"about": marker}, "tools": [tool]},
    ]
    for body in bodies:
        requests.post(url, json=body | fields, timeout=60)
    requests.post(f"{server.url}/v1/completions", json={"prompt": marker, "max_tokens": 2} | fields, timeout=60)
    words = {"input": marker, "instructions": marker, "metadata": {"about": marker}, "max_output_tokens": 16}
    for more in ({}, {"stream": True}, {"text": {"format": {"type": "text"}}, "tools": [{"type": "web", "x": marker}]}):
        requests.post(f"{server.url}/v1/responses", json=words | more | fields, timeout=60)
    long = {"messages": [message], "max_tokens": 500, "ignore_eos": True, "stream": True}
    with requests.post(url, json=long | fields, stream=True, timeout=60) as left:
        next(left.iter_lines())


def _wait_until_delivered(server: Server, requests_made: int) -> None:
    def delivered() -> bool:
        total = requests.get(f"{server.url}/v1/stats", timeout=10).json()["requests"]["total"]
        return bool(total >= requests_made and server.health()["recording"]["pending"] == 0)

    wait_for(delivered, "the delivery of every request")


def _assert_items_refused(server: Server, marker: str) -> None:
    """Check that a conversation can be created, but that no items can be added."""
    url = f"{server.url}/v1/conversations"
    made = requests.post(url, json={"metadata": {"topic": "none"}}, timeout=10).json()
    for path in (url, f"{url}/{made['id']}/items"):
        answer = requests.post(path, json={"items": [{"role": "user", "content": marker}]}, timeout=10)
        assert answer.status_code == 400
        assert_error_shape(answer.json(), code="not_supported", param="items")


def _assert_no_responses_stored(server: Server, marker: str) -> None:
    """Check that a response is marked as not stored, and that background responses are refused."""
    made = requests.post(
        f"{server.url}/v1/responses", json={"input": marker, "max_output_tokens": 16}, timeout=60
    ).json()
    assert made["store"] is False
    assert requests.get(f"{server.url}/v1/responses/{made['id']}", timeout=10).status_code == 404
    answer = requests.post(f"{server.url}/v1/responses", json={"input": marker, "background": True}, timeout=10)
    assert answer.status_code == 400
    assert_error_shape(answer.json(), code="not_supported", param="background")


def test_store_content_false_leaves_no_text_in_files_or_tables() -> None:
    """This holds also at the log level that shows llama.cpp's own log."""
    marker = f"marker-{uuid.uuid4().hex}"
    with temporary_data_dir() as data_dir:
        settings = {"CONTEXT_SIZE": "8192", "STORE_CONTENT": "false", "LOG_LEVEL": "DEBUG"}
        with running_server(data_dir, **settings) as server:
            _send_marker(server, marker)
            _wait_until_delivered(server, REQUESTS)
            _assert_items_refused(server, marker)
            _assert_no_responses_stored(server, marker)
            url = start_embedded_postgres(data_dir).url
            assert _tables_with(url, marker) == []
            assert _files_with(data_dir.parent, marker.encode()) == []
        assert _files_with(data_dir.parent, marker.encode()) == []


def test_requests_with_store_false_leave_no_text_in_files_or_tables(server: Server) -> None:
    marker = f"marker-{uuid.uuid4().hex}"
    before = requests.get(f"{server.url}/v1/stats", timeout=10).json()["requests"]["total"]
    _send_marker(server, marker, store=False)
    _wait_until_delivered(server, before + REQUESTS)
    url = start_embedded_postgres(server.data_dir).url
    assert _tables_with(url, marker) == []
    assert _files_with(server.data_dir.parent, marker.encode()) == []


def test_text_search_of_these_tests_finds_stored_text(server: Server) -> None:
    marker = f"marker-{uuid.uuid4().hex}"
    body = {"messages": [{"role": "user", "content": marker}], "max_tokens": 1}
    requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    url = start_embedded_postgres(server.data_dir).url
    wait_for(lambda: _tables_with(url, marker), "the message")
    assert _files_with(server.data_dir, marker.encode())
