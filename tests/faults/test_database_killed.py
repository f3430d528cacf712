"""PostgreSQL is killed under the running server: requests are served, and records are delivered when it is back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests
from filelock import FileLock

from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.databases import open_cursor
from tests.support.error_shape import assert_error_shape
from tests.support.processes import (
    Server,
    kill_processes,
    postgres_processes,
    running_server,
    temporary_data_dir,
    wait_for,
)

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


def _kill_postgres(server: Server) -> int:
    """Send SIGKILL to every PostgreSQL process at once, as a power failure does. Return the first one's number."""
    processes = postgres_processes(server.data_dir)
    kill_processes(processes)
    psutil.wait_procs(processes, timeout=10)
    return processes[0].pid


def test_requests_are_served_and_recorded_after_postgresql_was_killed(server: Server) -> None:
    assert _ask(server, "before").status_code == 200
    wait_for(lambda: server.health()["recording"]["pending"] == 0, "the delivery of what came before")
    # Whoever has this lock may start PostgreSQL, so that nobody else does meanwhile.
    with FileLock(server.data_dir / "postgres" / "lock", timeout=10, mode=0o600):
        killed = _kill_postgres(server)
        _check_server_without_postgres(server)

    wait_for(lambda: server.health()["recording"]["pending"] == 0, "the delivery of what waited", 60)
    health = server.health()
    assert (health["status"], health["embedded_postgres"]["restarts"]) == ("ok", 1)
    for line in (
        f"does not run: its process {killed} ended; it is started again",
        "the embedded PostgreSQL runs again",
    ):
        assert server.log().count(line) == 1
    assert "Traceback" not in server.log()
    messages = requests.get(f"{server.url}/v1/conversations/meanwhile", timeout=10).json()["messages"]
    assert messages[0]["content"] == "I am meanwhile"
    with open_cursor(start_embedded_postgres(server.data_dir).url) as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT request_id) FROM api_usage WHERE status = 200")
        assert cursor.fetchone() == (4, 4)


def _check_server_without_postgres(server: Server) -> None:
    assert _ask(server, "meanwhile").status_code == 200
    health = server.health()
    assert (health["status"], health["database"]["status"]) == ("degraded", "unavailable")
    assert health["embedded_postgres"]["state"] == "restarting"
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
