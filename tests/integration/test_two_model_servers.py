"""One supervisor with two model servers: failures of the second do not affect the first."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import requests

from mistral_api.control.server_spec import EMBEDDING_SERVER, MAIN_SERVER
from mistral_api.control.status import ModelServerStatus, State, read_status
from mistral_api.model_files.served_model import demo_model_path
from mistral_api.system.processes import identity_of, is_alive
from tests.support.processes import free_port, processes_of, wait_for
from tests.support.reranker_model import write_reranker
from tests.support.supervisor_process import run_supervisor_to_end, running_supervisor

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signal")


def _settings(data_dir: Path) -> dict[str, str]:
    path = write_reranker(data_dir.parent / "tiny.gguf")
    return {"EMBEDDING_MODEL_PATH": str(path), "EMBEDDING_SERVER_PORT": str(free_port())}


def _wait_for_state(data_dir: Path, server: str, state: State, restarts: int = 0) -> ModelServerStatus:
    def found() -> ModelServerStatus | None:
        status = read_status(data_dir, server)
        return status if status is not None and (status.state, status.restarts) == (state, restarts) else None

    status: ModelServerStatus = wait_for(found, f"{server} {state}", 40)
    return status


@posix
def test_both_model_servers_are_restarted_reported_and_stopped(data_dir: Path) -> None:
    settings = _settings(data_dir)
    with running_supervisor(data_dir, **settings) as running:
        main, second = running.wait_ready(), _wait_for_state(data_dir, EMBEDDING_SERVER, State.READY)
        assert (second.model, second.batch_size, second.context_size) == ("tiny", 128, 512)
        assert Path(second.log_path).name == "embedding-server.log"
        assert requests.get(f"{second.url}/health", timeout=10).status_code == 200
        shown = run_supervisor_to_end(data_dir, "status", "--json", **settings)
        status = json.loads(shown.stdout)
        assert (shown.returncode, status["pid"], status["state"]) == (0, main.pid, "ready")
        assert (status["embedding_server"]["pid"], status["embedding_server"]["state"]) == (second.pid, "ready")
        assert "embedding server:\nready since" in run_supervisor_to_end(data_dir, "status", **settings).stdout

        os.kill(second.pid or 0, signal.SIGKILL)
        again = _wait_for_state(data_dir, EMBEDDING_SERVER, State.READY, restarts=1)
        assert again.last_error == "the embedding server ended with signal 9"
        assert running.status() == main

        os.kill(main.pid or 0, signal.SIGKILL)
        running.wait_ready(restarts=1)
        assert read_status(data_dir, EMBEDDING_SERVER) == again

        running.process.terminate()
        assert running.process.wait(timeout=20) == 0
    assert not processes_of(data_dir)
    for server in (MAIN_SERVER, EMBEDDING_SERVER):
        _wait_for_state(data_dir, server, State.STOPPED, restarts=1)


@linux
def test_killed_supervisor_takes_both_model_servers_along(data_dir: Path) -> None:
    with running_supervisor(data_dir, **_settings(data_dir)) as running:
        statuses = running.wait_ready(), _wait_for_state(data_dir, EMBEDDING_SERVER, State.READY)
        servers = [identity_of(status.pid or 0) for status in statuses]
        running.process.kill()
        wait_for(lambda: not any(map(is_alive, servers)), "the end of both", 15)


@pytest.mark.parametrize("wrong", ["path", "model", "port"])
def test_embedding_server_that_cannot_start_does_not_affect_the_main_one(data_dir: Path, wrong: str) -> None:
    port, broken = str(free_port()), data_dir.parent / "broken.gguf"
    broken.write_bytes(write_reranker(data_dir.parent / "tiny.gguf").read_bytes().replace(b"cls.output", b"xxx.output"))
    path = {"path": "/no/such.gguf", "model": str(broken), "port": str(demo_model_path())}[wrong]
    settings = {"EMBEDDING_MODEL_PATH": path, "EMBEDDING_SERVER_PORT": port}
    if wrong == "port":
        settings["MODEL_SERVER_PORT"] = port
    with running_supervisor(data_dir, **settings) as running:
        main = running.wait_ready()
        restarts = 1 if wrong == "model" else 0
        status = _wait_for_state(data_dir, EMBEDDING_SERVER, State.FATAL, restarts)
        named = "EMBEDDING_SERVER_PORT" if wrong == "port" else "EMBEDDING_MODEL_PATH"
        assert (status.last_error or "").startswith(named)
        assert requests.get(f"{main.url}/health", timeout=10).status_code == 200
        assert running.status() == main


@posix
def test_embedding_server_runs_alone_beside_an_external_model_server(data_dir: Path) -> None:
    settings = _settings(data_dir) | {"MODEL_SERVER_URL": "http://127.0.0.1:1"}
    with running_supervisor(data_dir, **settings) as running:
        _wait_for_state(data_dir, EMBEDDING_SERVER, State.READY)
        assert read_status(data_dir) is None
        assert run_supervisor_to_end(data_dir, "status", **settings).stdout.startswith("ready since")
        running.process.terminate()
        assert running.process.wait(timeout=20) == 0
    done = run_supervisor_to_end(data_dir, **settings | {"EMBEDDING_MODEL_PATH": "/no/such.gguf"})
    assert done.returncode == 2
    assert done.stderr.startswith("EMBEDDING_MODEL_PATH: '/no/such.gguf' cannot be read")
