"""The disk is full: requests are served all the same, or refused where recording is required."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support.databases import open_cursor
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, running_api, wait_for

resource = pytest.importorskip("resource", reason="POSIX limits")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")


@contextmanager
def _full_disk(api: Server) -> Iterator[None]:
    """Let no file of the process grow or be written beyond its first byte, as on a full disk."""
    pid = api.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def _ask(api: Server, session_id: str, stream: bool = False) -> requests.Response:
    body = {
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "session_id": session_id, "stream": stream
    }  # fmt: skip
    return requests.post(f"{api.url}/v1/chat/completions", json=body, timeout=60)


@contextmanager
def _api(server: Server, database_url: str, data_dir: Path, **settings: str) -> Iterator[Server]:
    with running_api(data_dir, DATABASE_URL=database_url, **server.model_settings, **settings) as api:
        yield api


def test_full_disk_does_not_stop_serving_and_health_reports_it(
    server: Server, database_url: str, data_dir: Path
) -> None:
    with _api(server, database_url, data_dir) as api:
        assert _ask(api, "before").status_code == 200
        with _full_disk(api):
            for number in range(4):
                assert _ask(api, f"meanwhile-{number}", stream=number % 2 == 1).status_code == 200
            read = requests.get(f"{api.url}/v1/conversations/meanwhile-0", timeout=10)
            assert [message["role"] for message in read.json()["messages"]] == ["user", "assistant"]
            health = api.health()
            assert (health["status"], health["recording"]["status"]) == ("degraded", "failing")
            assert health["database"]["status"] == "ok"
        wait_for(lambda: api.health()["status"] == "ok", "recovery")
        assert _ask(api, "after").status_code == 200
        wait_for(lambda: api.health()["recording"]["pending"] == 0, "the delivery of everything")
        with open_cursor(database_url) as cursor:
            cursor.execute("SELECT session_id FROM conversations ORDER BY session_id")
            found = [row[0] for row in cursor.fetchall()]
    assert found == ["after", "before", *(f"meanwhile-{number}" for number in range(4))]


def test_full_disk_refuses_requests_when_recording_is_required(
    server: Server, database_url: str, data_dir: Path
) -> None:
    with _api(server, database_url, data_dir, RECORDING_REQUIRED="true") as api:
        assert _ask(api, "before").status_code == 200
        with _full_disk(api):
            refused = _ask(api, "meanwhile")
            assert refused.status_code == 503
            assert_error_shape(refused.json(), code="recording_unavailable", type="server_error")
            assert refused.headers["Retry-After"]
        wait_for(lambda: _ask(api, "after").status_code == 200, "recovery")
