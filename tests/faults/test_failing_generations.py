"""``/health`` is good and every generation fails: the API tells the supervisor, which restarts the model server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import requests

from mistral_api.control.status import read_status
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, free_port, running_server, wait_for
from tests.support.reranker_model import write_reranker
from tests.support.supervisor_process import MisbehavingEngine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script as the model server")


def test_three_failed_generations_in_a_row_restart_a_healthy_looking_model_server(
    data_dir: Path, engine: MisbehavingEngine
) -> None:
    with running_server(data_dir, MODEL_ALIAS="fake", **engine.settings("fine")) as server:
        first = server.health()["model_server"]
        assert first["state"] == "ready"
        for _ in range(2):
            _assert_generation_fails(server)
        assert server.health()["model_server"]["pid"] == first["pid"]
        _assert_generation_fails(server)
        wait_for(lambda: server.health()["model_server"]["pid"] not in (None, first["pid"]), "another model server")
        status = read_status(data_dir)
        assert status is not None
        assert status.last_restarts[0].reason.startswith("the model server hung: 3 generations in a row failed")
        assert "Compute error" in status.last_restarts[0].reason


def test_failing_embedding_server_is_restarted_without_the_main_model_server(
    data_dir: Path, engine: MisbehavingEngine
) -> None:
    path, port = write_reranker(data_dir.parent / "tiny.gguf"), str(free_port())
    second = {"EMBEDDING_MODEL_PATH": str(path), "EMBEDDING_SERVER_PORT": port}
    with running_server(data_dir, MODEL_ALIAS="fake", **second, **engine.settings("fine")) as server:

        def pids() -> tuple[int | None, int | None]:
            health = server.health()
            return health["model_server"]["pid"], health["embedding_server"]["pid"]

        server.wait_for_embedding_server()
        first, second_before = pids()
        for _ in range(3):
            body = {"query": "q", "documents": ["d"]}
            assert requests.post(f"{server.url}/v1/rerank", json=body, timeout=20).status_code == 502
        wait_for(lambda: pids()[1] not in (None, second_before), "another embedding server")
        assert pids()[0] == first


def _assert_generation_fails(server: Server) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
    answer = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)
    assert answer.status_code == 502
    assert_error_shape(answer.json(), code="model_server_error")
