"""A misbehaving model server: the supervisor detects it, restarts it, and reports what it did."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from mistral_api.control.server_spec import main_server_spec
from mistral_api.control.status import State, read_status
from mistral_api.settings import Settings
from mistral_api.supervisor.events import Events
from mistral_api.supervisor.status_reporter import StatusReporter
from mistral_api.supervisor.supervisor import Supervisor, TooManyRestarts
from mistral_api.system.backoff import Backoff
from tests.support.processes import free_port, processes_of, wait_for
from tests.support.supervisor_process import (
    MisbehavingEngine,
    SupervisorProcess,
    run_supervisor_to_end,
    running_supervisor,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and scripts")


@pytest.mark.parametrize(
    ("how", "ending"), [("exit-0", "exit code 0"), ("exit-1", "exit code 1"), ("signal", "signal 11")]
)
def test_model_server_that_exits_while_loading_is_fatal_with_its_last_output(
    data_dir: Path, engine: MisbehavingEngine, how: str, ending: str
) -> None:
    done = run_supervisor_to_end(data_dir, **engine.settings(how))
    assert done.returncode == 2
    assert f"ended with {ending} while it was loading" in done.stderr
    assert ("the last words" in done.stderr) == (how != "signal")
    assert len(engine.starts()) == 2


def test_gpu_layers_are_reduced_until_the_model_fits_and_the_result_is_remembered(
    data_dir: Path, engine: MisbehavingEngine
) -> None:
    settings = engine.settings("layers-14") | {"GPU_LAYERS": "auto"}  # the demo model has 30 blocks
    with running_supervisor(data_dir, **settings) as running:
        status = running.wait_ready(restarts=2)
    assert [start["-ngl"] for start in engine.starts()] == ["auto", "20", "13"]
    assert (status.gpu_layers, status.cache_type) == ("13", None)
    assert "asked for: auto GPU layers" in (status.memory_step or "")
    assert "for want of memory; next try: 13 GPU layers" in status.last_restarts[-1].reason
    with running_supervisor(data_dir, **settings) as running:
        assert running.wait_ready().gpu_layers == "13"
    with running_supervisor(data_dir, "--retry-gpu", **settings) as running:
        running.wait_ready(restarts=2)
    assert [start["-ngl"] for start in engine.starts()] == ["auto", "20", "13", "13", "auto", "20", "13"]


def test_model_is_served_by_the_cpu_when_no_layer_fits_the_gpu(data_dir: Path, engine: MisbehavingEngine) -> None:
    with running_supervisor(data_dir, **engine.settings("layers-0") | {"GPU_LAYERS": "all"}) as running:
        wait_for(lambda: len(engine.starts()) == 7, "the last step", 30)
        status = running.wait_ready(restarts=6)
    assert (status.gpu_layers, status.context_size, status.cache_type) == ("0", 8192, None)
    tried = [(start["-ngl"], start["-c"], start.get("-ctk")) for start in engine.starts()]
    assert tried[-3:] == [("8", "8192", "q8_0"), ("8", "4096", "q8_0"), ("0", "8192", None)]


def test_model_that_fits_neither_gpu_nor_host_memory_is_fatal(data_dir: Path, engine: MisbehavingEngine) -> None:
    done = run_supervisor_to_end(data_dir, **engine.settings("host-memory"))
    assert done.returncode == 2
    assert "does not fit into the memory of this machine, not even with auto GPU layers, q8_0 KV cache" in done.stderr
    assert len(engine.starts()) == 4


def test_model_server_that_never_becomes_ready_is_fatal(data_dir: Path, engine: MisbehavingEngine) -> None:
    done = run_supervisor_to_end(data_dir, **engine.settings("never-ready") | {"LOAD_SECONDS": "1"})
    assert done.returncode == 2
    assert "was not loaded after 1 s" in done.stderr
    assert not processes_of(engine.folder)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("garbage-later", "has not answered for"),
        ("slots-hang", "has not answered for"),
        ("stands-still", "none of its 1 busy slots has advanced for"),
        ("ignores-term", "none of its 1 busy slots has advanced for"),
        ("no-slots", "none of its 1 busy slots has advanced for"),
        ("loop", "has not answered for"),
    ],
)
def test_hanging_model_server_is_stopped_and_restarted(
    data_dir: Path, engine: MisbehavingEngine, how: str, reason: str
) -> None:
    settings = engine.settings(f"{how},fine") | {"HANG_SECONDS": "1", "THREADS": "2"}
    with running_supervisor(data_dir, **settings) as running:
        status = running.wait_ready(restarts=1)
    assert reason in status.last_restarts[0].reason
    assert engine.probes() < 40  # the probe loop does not spin


@pytest.mark.parametrize("how", ["slow", "no-slots-slow", "no-slots-no-metrics", "wants-key"])
def test_slow_or_idle_model_server_is_not_restarted(data_dir: Path, engine: MisbehavingEngine, how: str) -> None:
    with running_supervisor(data_dir, **engine.settings(how) | {"HANG_SECONDS": "1"}) as running:
        first = running.wait_ready()
        asked = engine.probes()
        wait_for(lambda: engine.probes() >= asked + 3, "three more probes")
        assert running.status() == first


@pytest.mark.slow
def test_model_server_silent_during_a_cpu_batch_is_not_restarted(data_dir: Path, engine: MisbehavingEngine) -> None:
    with running_supervisor(data_dir, **engine.settings("batch") | {"HANG_SECONDS": "1", "THREADS": "2"}) as running:
        first = running.wait_ready()
        asked = engine.probes()
        wait_for(lambda: engine.probes() >= asked + 3, "three more probes, 2 s each")
        assert running.status() == first


def test_model_load_that_shows_progress_may_exceed_load_seconds(data_dir: Path, engine: MisbehavingEngine) -> None:
    with running_supervisor(data_dir, **engine.settings("loads-slowly") | {"LOAD_SECONDS": "5"}) as running:
        assert running.wait_ready().restarts == 0


def test_stop_signal_ends_a_hanging_version_check(data_dir: Path) -> None:
    program = data_dir.parent / "llama-server"
    program.write_text("#!/bin/sh\nsleep 60\n")
    program.chmod(0o755)
    with running_supervisor(data_dir, LLAMA_SERVER_BIN=str(program)) as running:
        wait_for(lambda: processes_of(program), "the program")
        running.process.terminate()
        assert running.process.wait(timeout=10) == 0
        assert running.status().state is State.STOPPED
    assert not processes_of(program)


def test_next_supervisor_finds_and_stops_a_server_started_by_a_wrapper_script(
    data_dir: Path, engine: MisbehavingEngine
) -> None:
    program = engine.folder / "llama-server"
    program.write_text(program.read_text().replace("exec ", "") + "exit $?\n")  # the script remains the parent process
    settings = engine.settings("fine") | {"MODEL_SERVER_PORT": str(free_port())}
    with running_supervisor(data_dir, **settings) as running:
        running.wait_ready()
        running.process.kill()
        running.process.wait(timeout=10)
    wait_for(lambda: len(_server_pids(settings)) == 1, "the end of the script", 10)
    [orphan] = _server_pids(settings)
    with running_supervisor(data_dir, **settings) as running:
        running.wait_ready()
        assert not _is_running(orphan)


def _server_pids(settings: dict[str, str]) -> list[int]:
    """Return every process that has the server's port on its command line."""
    named = [(process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [
        process.pid for process, words in named if settings["MODEL_SERVER_PORT"] in words and _is_running(process.pid)
    ]


def test_model_server_inherits_no_file_descriptors(data_dir: Path, engine: MisbehavingEngine) -> None:
    with running_supervisor(data_dir, **engine.settings("fine")) as running:
        running.wait_ready()
        assert engine.descriptors() == ["0", "1", "2", "3"]  # 3: the listing of the folder itself


def test_model_server_killed_while_loading_is_restarted_with_the_same_memory_settings(
    data_dir: Path, engine: MisbehavingEngine
) -> None:
    settings = engine.settings("never-ready,never-ready,never-ready,fine")
    with running_supervisor(data_dir, **settings) as running:
        for restarts in range(3):
            _kill_loading(running, engine, restarts)
        assert running.wait_ready(restarts=3).gpu_layers == "auto"


def _kill_loading(running: SupervisorProcess, engine: MisbehavingEngine, restarts: int) -> None:
    pid = wait_for(lambda: _loading(running, engine, restarts), "a server that loads")
    os.kill(pid, signal.SIGKILL)


def _loading(running: SupervisorProcess, engine: MisbehavingEngine, restarts: int) -> int | None:
    status = read_status(running.data_dir)
    loading = status is not None and (status.state, status.restarts) == (State.LOADING, restarts)
    return status.pid if status is not None and loading and len(engine.starts()) == restarts + 1 else None


def test_next_supervisor_starts_after_a_killed_one_left_a_server_that_ignores_sigterm(
    data_dir: Path, engine: MisbehavingEngine
) -> None:
    with running_supervisor(data_dir, **engine.settings("ignores-term,fine")) as running:
        first = running.wait_ready().pid
        running.process.kill()
        running.process.wait(timeout=10)
    assert first is not None
    wait_for(lambda: not _is_running(first), "the end of the orphan", 15)
    with running_supervisor(data_dir, **engine.settings("fine")) as running:
        assert running.wait_ready().pid != first


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_hundred_crashes_in_a_row_end_and_leak_no_memory(
    data_dir: Path, engine: MisbehavingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in engine.settings("dies-ready").items():
        monkeypatch.setenv(name, value)
    settings = Settings(
        data_dir=data_dir, model_server_port=free_port(), llama_server_bin=Path(engine.settings("")["LLAMA_SERVER_BIN"])
    )
    (data_dir / "run").mkdir(parents=True)
    process, sizes = psutil.Process(), []

    class Measured(Backoff):
        """A backoff without waits that records the process's memory at each crash."""

        def next_delay(self, healthy_seconds: float) -> float | None:
            """Record the memory, and return no wait."""
            sizes.append(process.memory_info().rss)
            return None if super().next_delay(healthy_seconds) is None else 0.0

    before = set(threading.enumerate())
    served, backoff = main_server_spec(settings), Measured(max_restarts=100)
    with pytest.raises(TooManyRestarts, match="Given up after 100 restarts"):
        Supervisor(served, Events(), StatusReporter(served), backoff=backoff).run()
    assert len(engine.starts()) == 101
    assert max(sizes[50:]) - sizes[20] < 4 << 20
    status = read_status(data_dir)
    assert status is not None
    assert (status.state, len(status.last_restarts)) == (State.FATAL, 20)
    assert not processes_of(engine.folder)
    begun = set(threading.enumerate()) - before
    assert not [thread.name for thread in begun if thread.name.startswith("model-server")]
