"""``bin/serve`` from start to stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

from mistral_api.model_files.served_model import demo_model_path
from mistral_api.system.processes import identity_of, is_alive
from tests.support.processes import (
    ROOT,
    Server,
    clean_environment,
    free_port,
    launch_server,
    processes_of,
    running_server,
    wait_for,
    wait_until_ready,
)

LONG_STREAM = {
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": 100,
    "ignore_eos": True,
    "stream": True,
    "session_id": "before-the-end",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_after_running_streams_and_leaves_no_process(data_dir: Path, stop_signal: signal.Signals) -> None:
    with running_server(data_dir, CONTEXT_SIZE="2048", SHUTDOWN_SECONDS="30") as server:
        with requests.post(f"{server.url}/v1/chat/completions", json=LONG_STREAM, stream=True, timeout=60) as answer:
            pieces = answer.iter_content(None)
            received = next(pieces)
            server.process.send_signal(stop_signal)
            wait_for(lambda: _refuses_connections(server.api_port), "a closed listener")
            received += b"".join(pieces)
        assert received.endswith(b"data: [DONE]\n\n")
        assert server.process.wait(timeout=30) == 0
        wait_for(lambda: not processes_of(data_dir), "the end of every process")
    with running_server(data_dir, CONTEXT_SIZE="2048") as again:
        stored = requests.get(f"{again.url}/v1/conversations/before-the-end", timeout=10).json()
        assert [message["status"] for message in stored["messages"]] == ["complete", "complete"]


def test_serve_ends_streams_with_an_error_event_after_shutdown_seconds(data_dir: Path) -> None:
    endless = LONG_STREAM | {"max_tokens": 1900}
    with running_server(data_dir, SHUTDOWN_SECONDS="0.2", CONTEXT_SIZE="8192") as server:
        with requests.post(f"{server.url}/v1/chat/completions", json=endless, stream=True, timeout=60) as answer:
            pieces = answer.iter_content(None)
            received = next(pieces)
            server.process.terminate()
            received += b"".join(pieces)
        last = received.strip().split(b"\n\n")[-1]
        assert b'"error"' in last
        assert b"shutting down" in last
        assert server.process.wait(timeout=30) == 0
        wait_for(lambda: not processes_of(data_dir), "the end of every process")


def _refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def _startup_error(data_dir: Path, *options: str, **settings: str) -> str:
    """Return the error of a start that fails; it must exit with 2 and leave no process."""
    sentence = _refusal(data_dir, *options, **settings)
    wait_for(lambda: not processes_of(data_dir), "the end of every process")
    return sentence


def _refusal(data_dir: Path, *options: str, **settings: str) -> str:
    """Return the one sentence with which a start ends, which must exit with 2."""
    settings = {
        "API_PORT": str(free_port()),
        "MODEL_SERVER_PORT": str(free_port()),
        "DATA_DIR": str(data_dir),
    } | settings
    done = subprocess.run(
        [sys.executable, "-m", "mistral_api.serving", *options],
        env=clean_environment(LOG_LEVEL="ERROR", **settings),
        cwd=data_dir.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    sentence = done.stderr.strip()
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence


def test_serve_reports_a_taken_port_in_one_sentence(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}" in _startup_error(data_dir, "--port", port)


@pytest.mark.slow
def test_serve_reports_addresses_that_it_cannot_listen_on_before_anything_is_started(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        used = f"cannot listen on 127.0.0.1:{port}: Address already in use. Stop the program that uses it, or choose"
        model = str(demo_model_path())
        sentence = _startup_error(data_dir, EMBEDDING_MODEL_PATH=model, EMBEDDING_SERVER_PORT=port)
        assert sentence.startswith(f"EMBEDDING_SERVER_PORT: {used}")
    own = str(free_port())
    assert f"{own} is the port of the API" in _startup_error(data_dir, "--port", own, MODEL_SERVER_PORT=own)
    sentence = _startup_error(data_dir, "--host", "192.0.2.1")
    assert sentence.startswith("API_HOST: '192.0.2.1' is no address of this machine; use 127.0.0.1")
    assert not (data_dir / "postgres").exists()


def test_second_server_on_a_data_dir_is_refused_before_anything_is_started(server: Server) -> None:
    began = time.monotonic()
    sentence = _refusal(server.data_dir)
    assert sentence.startswith(f"DATA_DIR: another server, or bin/supervisor, runs on '{server.data_dir}' (process ")
    assert "stop it first, or give this one another folder with --data-dir." in sentence
    assert time.monotonic() - began < 15
    assert server.health()["status"] == "ok"


@pytest.mark.slow
def test_serve_starts_at_once_after_it_was_killed(data_dir: Path) -> None:
    for _ in range(2):
        with launch_server(data_dir, CONTEXT_SIZE="2048") as server:
            wait_until_ready(server)
            server.process.kill()
            server.process.wait()
            with running_server(data_dir, **_ports_of(server), CONTEXT_SIZE="2048") as next_one:
                assert server.health()["status"] == "ok"  # on the same port
                assert "Traceback" not in next_one.log()


def _ports_of(server: Server) -> dict[str, str]:
    return {"API_PORT": str(server.api_port), "MODEL_SERVER_PORT": str(server.model_port)}


def test_serve_reports_a_missing_model_in_one_sentence(data_dir: Path) -> None:
    assert "MODEL_PATH: '/no/such.gguf' cannot be read" in _startup_error(data_dir, MODEL_PATH="/no/such.gguf")


def test_serve_reports_an_unwritable_data_dir_in_one_sentence(data_dir: Path) -> None:
    blocked = data_dir.parent / "file"
    blocked.write_text("a file where a folder should be")
    assert "DATA_DIR: cannot write in" in _startup_error(data_dir, DATA_DIR=str(blocked / "var"))


def test_serve_restarts_a_killed_supervisor(data_dir: Path) -> None:
    with running_server(data_dir, CONTEXT_SIZE="2048") as server:
        first = server.health()["model_server"]["pid"]
        supervisor = psutil.Process(first).parent()
        assert supervisor is not None
        orphan = identity_of(first)
        supervisor.kill()

        def replaced() -> bool:
            model_server = server.health()["model_server"]
            return model_server["state"] == "ready" and model_server["pid"] not in (None, first)

        wait_for(replaced, "another model server", 30)
        # Its end, not its reaping: init frees an orphan's pid only after a while.
        wait_for(lambda: not is_alive(orphan), "the end of the first model server")


def test_bin_serve_starts_the_stack(data_dir: Path) -> None:
    port, model_port = str(free_port()), str(free_port())
    log = (data_dir.parent / "bin.log").open("w+")
    with log:
        command = [sys.executable, str(ROOT / "bin" / "serve"), "--port", port, "--data-dir", str(data_dir)]
        environment = clean_environment(MODEL_SERVER_PORT=model_port, CONTEXT_SIZE="2048")
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            ready = f"Mistral Local API ready on http://127.0.0.1:{port}"
            wait_for(lambda: ready in Path(log.name).read_text(), "the ready line", 240)
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
            answer = requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
            assert answer.status_code == 200
        finally:
            process.terminate()
            assert process.wait(timeout=40) == 0


def test_health_reports_the_state_while_the_model_loads(data_dir: Path) -> None:
    with launch_server(data_dir, CONTEXT_SIZE="2048") as server:
        wait_for(lambda: not _refuses_connections(server.api_port), "an answering API", 60)
        answer = requests.get(f"{server.url}/health", timeout=10)
        state = answer.json()["model_server"]["state"]
        assert answer.status_code == (200 if state == "ready" else 503)
        assert state in ("stopped", "starting", "loading", "ready")
        wait_until_ready(server)
