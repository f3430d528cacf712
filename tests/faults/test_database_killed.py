"""PostgreSQL is killed under the running server: requests are served, and records are delivered when it is back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg2
import pytest
import requests

from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, libpq_url, processes_of, running_server, temporary_data_dir, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def server() -> Iterator[Server]:
    """A stack for one test, whose database is killed."""
    with (
        temporary_data_dir() as data_dir,
        running_server(data_dir, CONTEXT_SIZE="8192", SHUTDOWN_SECONDS="1") as running,
    ):
        yield running


def _ask(server: Server, session_id: str | None, **fields: Any) -> requests.Response:
    body: dict[str, Any] = fields | {
        "messages": [{"role": "user", "content": f"I am {session_id}"}],
        "max_tokens": 2,
    }
    if session_id is not None:
        body["session_id"] = session_id
    return requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def _kill_postgres(server: Server) -> None:
    """Send SIGKILL to every PostgreSQL process at once, as a power failure does."""
    servers = [process for process in processes_of(server.data_dir) if "postgres" in process.name()]
    assert servers
    children = [child for process in servers for child in process.children(recursive=True)]
    for process in servers + children:
        if process.is_running():
            os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(servers + children, timeout=10)


def test_requests_are_served_and_recorded_after_postgresql_was_killed(server: Server) -> None:
    assert _ask(server, "before").status_code == 200
    wait_for(lambda: server.health()["recording"]["pending"] == 0, "the delivery of what came before")
    _kill_postgres(server)

    assert _ask(server, "meanwhile").status_code == 200
    health = server.health()
    assert (health["status"], health["database"]["status"]) == ("degraded", "unavailable")
    assert health["recording"]["pending"] == 1
    read = requests.get(f"{server.url}/v1/conversations/meanwhile", timeout=20)
    assert read.json()["messages"][0]["content"] == "I am meanwhile"
    for path in ("/v1/conversations/before", "/v1/stats"):
        answer = requests.get(server.url + path, timeout=20)
        assert answer.status_code == 503, answer.text
        assert_error_shape(answer.json(), code="database_unavailable")
        assert answer.headers["Retry-After"]
    # Of both PostgreSQL may have earlier messages: a session that its client named need not be new.
    for session_id in ("meanwhile", "before"):
        answer = _ask(server, session_id, use_history=True)
        assert answer.status_code == 503, answer.text
        assert_error_shape(answer.json(), code="database_unavailable")
    begun = _ask(server, None)
    continued = _ask(server, begun.headers["X-Session-Id"], use_history=True)
    assert continued.json()["usage"]["prompt_tokens"] > begun.json()["usage"]["prompt_tokens"]

    revived = start_embedded_postgres(server.data_dir)
    try:
        wait_for(lambda: server.health()["recording"]["pending"] == 0, "the delivery of what waited", 30)
        assert server.health()["status"] == "ok"
        messages = requests.get(f"{server.url}/v1/conversations/meanwhile", timeout=10).json()["messages"]
        assert messages[0]["content"] == "I am meanwhile"
        connection = psycopg2.connect(libpq_url(revived.url))
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*), count(DISTINCT request_id) FROM api_usage WHERE status = 200")
            assert cursor.fetchone() == (4, 4)
        connection.close()
    finally:
        server.stop()
        revived.stop()
