"""``/health`` is green and every generation fails: the API tells the supervisor, which replaces the server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import requests

from mistral_api.supervisor.status import read_status
from tests.running import Server, running_server, wait_for
from tests.shapes import assert_error_shape
from tests.supervising import misbehaving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script as the model server")


def test_three_failures_in_a_row_replace_a_server_whose_health_is_green(data_dir: Path) -> None:
    engine = misbehaving(data_dir.parent / "engine")
    with running_server(data_dir, MODEL_ALIAS="fake", **engine.settings("fine")) as server:
        first = server.health()["model_server"]
        assert first["state"] == "ready"
        for _ in range(2):
            _fails(server)
        assert server.health()["model_server"]["pid"] == first["pid"]
        _fails(server)
        wait_for(lambda: server.health()["model_server"]["pid"] not in (None, first["pid"]), "another model server")
        status = read_status(data_dir)
        assert status is not None
        assert status.last_restarts[0].reason.startswith("the model server hung: 3 generations in a row failed")
        assert "Compute error" in status.last_restarts[0].reason


def _fails(server: Server) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
    answer = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)
    assert answer.status_code == 502
    assert_error_shape(answer.json(), code="model_server_error")
