"""The supervisor alone, with the real bundled engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
import requests

from mistral_api.control.status import ModelServerStatus, State, read_status
from mistral_api.system.processes import identity_of, is_alive
from tests.support.gguf_files import write_gguf
from tests.support.processes import processes_of, read_key, wait_for
from tests.support.supervisor_process import broken_xllamacpp, run_supervisor_to_end, running_supervisor

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signal")


@posix
def test_model_server_is_started_reported_restarted_and_stopped(data_dir: Path) -> None:
    with running_supervisor(data_dir, MODEL_ALIAS="mine,other", GPU_LAYERS="20") as running:
        first = running.wait_ready()
        assert (first.engine, first.model, first.parallel) == ("bundled", "mine", 4)
        assert (first.architecture, first.quantization, first.model_context) == ("llama", "Q4_1", 8192)
        assert first.parameters == 134_515_008
        key = {"Authorization": f"Bearer {read_key(data_dir)}"}
        props = requests.get(f"{first.url}/props", headers=key, timeout=10).json()
        assert props["default_generation_settings"]["n_ctx"] == 8192  # all of it, since the slots share one cache
        assert requests.get(f"{first.url}/metrics", headers=key, timeout=10).status_code == 200
        wait_for(lambda: "listening" in Path(first.log_path).read_text(), "a word of it in the log")
        shown = run_supervisor_to_end(data_dir, "status", "--json")
        assert (shown.returncode, json.loads(shown.stdout)["state"]) == (0, "ready")
        # The processor computes, whatever layers were asked for.
        placement = first.placement
        assert placement is not None
        assert (placement.device, placement.gpu_layers, placement.context_size) == ("cpu", 0, 8192)
        assert (placement.request_context_size, placement.unified_cache) == (8192, True)
        assert "GPU layers 0 (set: 20), " in run_supervisor_to_end(data_dir, "status").stdout
        refused = run_supervisor_to_end(data_dir)
        assert refused.returncode == 2
        assert "another supervisor runs" in refused.stderr

        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        second = running.wait_ready(restarts=1)
        assert second.pid != first.pid
        assert second.placement == placement
        assert second.last_error == "the model server ended with signal 9"
        assert [restart.reason for restart in second.last_restarts] == ["the model server ended with signal 9"]

        running.process.terminate()
        assert running.process.wait(timeout=20) == 0
    assert read_status(data_dir).state is State.STOPPED  # type: ignore[union-attr]  # checked by status above
    assert not processes_of(data_dir)
    assert second.pid is not None
    assert not psutil.pid_exists(second.pid)
    assert run_supervisor_to_end(data_dir, "status").returncode == 1


@linux
def test_killed_supervisor_takes_its_model_server_along(data_dir: Path) -> None:
    with running_supervisor(data_dir) as running:
        pid = running.wait_ready().pid
        assert pid is not None
        server = identity_of(pid)
        running.process.kill()
        # Its end, not its reaping: init frees an orphan's pid only after a while, which took 2 s here.
        wait_for(lambda: not is_alive(server), "the end of the model server", 15)
        assert running.status().state is State.STOPPED


@posix
@pytest.mark.parametrize("name", ["SIGHUP", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_stopping_while_the_model_loads_leaves_no_process(data_dir: Path, name: str) -> None:
    with running_supervisor(data_dir) as running:
        wait_for(lambda: (read_status(data_dir) or running).__class__ is ModelServerStatus, "a status")
        running.process.send_signal(signal.Signals[name])
        assert running.process.wait(timeout=20) == 0
    assert not processes_of(data_dir)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"MODEL_PATH": "/no/such.gguf"}, "MODEL_PATH: '/no/such.gguf' cannot be read: No such file"),
        ({"MODEL_PATH": __file__}, "is not a GGUF file"),
        ({"LLAMA_SERVER_BIN": "/no/such/program"}, "LLAMA_SERVER_BIN: '/no/such/program' does not run"),
        ({"LLAMA_SERVER_BIN": "/bin/false"}, "LLAMA_SERVER_BIN: '/bin/false' does not run"),
        ({"LLAMA_ARG_RPC": "10.0.0.2:50052"}, "LLAMA_ARG_RPC: the bundled engine cannot compute on other machines"),
        ({"MODEL_SERVER_URL": "http://127.0.0.1:1"}, "MODEL_SERVER_URL is set"),
    ],
)
def test_configuration_error_is_fatal_at_once(data_dir: Path, settings: dict[str, str], sentence: str) -> None:
    done = run_supervisor_to_end(data_dir, **settings)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    if "MODEL_SERVER_URL" not in settings:
        status = read_status(data_dir)
        assert status is not None
        assert status.state is State.FATAL
        assert sentence in (status.last_error or "")


def test_taken_model_server_port_is_fatal_at_once(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_supervisor_to_end(data_dir, MODEL_SERVER_PORT=str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert done.stderr.startswith("MODEL_SERVER_PORT: cannot listen on 127.0.0.1:")


def test_bundled_engine_whose_libraries_are_missing_is_named_at_once_and_not_the_model(data_dir: Path) -> None:
    folder = broken_xllamacpp(data_dir.parent)
    done = run_supervisor_to_end(data_dir, PYTHONPATH=str(folder))
    assert done.returncode == 2
    assert done.stderr.startswith("The bundled engine cannot start: xllamacpp cannot be loaded, ")
    assert done.stderr.endswith(": DLL load failed while importing xllamacpp.\n")
    status = read_status(data_dir)
    assert status is not None
    assert (status.state, status.restarts) == (State.FATAL, 0)


def test_unloadable_model_is_tried_twice_and_reported_with_the_servers_own_error(data_dir: Path) -> None:
    unknown = write_gguf(data_dir.parent / "unknown.gguf", {"general.architecture": "no-such-thing"})
    done = run_supervisor_to_end(data_dir, MODEL_PATH=str(unknown), LLAMA_ARG_SEED="1", LLAMA_ARG_PORT="1")
    assert done.returncode == 2
    assert f"MODEL_PATH: '{unknown}' cannot be loaded with LLAMA_ARG_SEED: " in done.stderr
    assert "unknown model architecture: 'no-such-thing'" in done.stderr
    status = read_status(data_dir)
    assert status is not None
    assert (status.state, status.restarts) == (State.FATAL, 1)
    assert any("no-such-thing" in line for line in status.last_lines)
    assert run_supervisor_to_end(data_dir, "status").returncode == 2


@pytest.mark.skipif("LLAMA_SERVER_BIN" not in os.environ, reason="LLAMA_SERVER_BIN names no llama-server")
def test_real_llama_server_accepts_our_command_line_and_serves(data_dir: Path) -> None:
    with running_supervisor(data_dir, LLAMA_SERVER_BIN=os.environ["LLAMA_SERVER_BIN"], MODEL_ALIAS="real") as running:
        status = running.wait_ready()
        assert status.engine == "llama-server"
        assert status.engine_version
        key = {"Authorization": f"Bearer {read_key(data_dir)}"}
        body = {"model": "real", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        answer = requests.post(f"{status.url}/v1/chat/completions", json=body, headers=key, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] > 0
        assert requests.get(f"{status.url}/slots", headers=key, timeout=10).status_code == 200
