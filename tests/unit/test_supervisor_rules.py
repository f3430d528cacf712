"""The supervisor's rules: legal states, backoff, the status file and the server's command line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from mistral_api.control.server_spec import main_server_spec
from mistral_api.control.status import (
    SUCCESSORS,
    IllegalTransition,
    State,
    StatusReader,
    read_status,
    read_status_file,
    require_legal_transition,
    status_file,
    write_status,
)
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, server_command
from mistral_api.supervisor.memory_fallback import MemoryStep, requested_step
from mistral_api.supervisor.status_command import EXIT_CODES
from mistral_api.supervisor.status_reporter import StatusReporter
from mistral_api.system.backoff import Backoff
from mistral_api.system.processes import identity_of, is_alive
from tests.support.clock import Clock


def test_every_state_is_reachable_and_none_is_final() -> None:
    assert set(SUCCESSORS) == set(State)
    assert all(SUCCESSORS.values())
    assert set.union(*SUCCESSORS.values()) == set(State)


@pytest.mark.parametrize(
    ("current", "following"),
    [(State.STOPPED, State.READY), (State.FATAL, State.READY), (State.BACKOFF, State.READY)],
)
def test_illegal_state_transition_is_refused(current: State, following: State) -> None:
    with pytest.raises(IllegalTransition, match=f"{following} does not follow {current}"):
        require_legal_transition(current, following)


def test_backoff_grows_with_each_crash_up_to_30_seconds() -> None:
    backoff = Backoff(max_restarts=20)
    waits = [backoff.next_delay(healthy_seconds=1) for _ in range(8)]
    assert all(wait is not None for wait in waits)
    for wait, longest in zip(waits, (0.1, 0.3, 0.9, 2.7, 8.1, 24.3, 30, 30), strict=True):
        assert longest * 0.75 <= (wait or 0) <= longest


def test_backoff_resets_after_a_minute_of_health() -> None:
    backoff = Backoff(max_restarts=20)
    for _ in range(5):
        backoff.next_delay(healthy_seconds=1)
    assert (backoff.next_delay(healthy_seconds=60) or 1) <= 0.1


def test_more_than_max_restarts_in_ten_minutes_is_fatal() -> None:
    clock = Clock()
    backoff = Backoff(max_restarts=3, clock=clock)
    for clock.now in (0, 100, 200):
        assert backoff.next_delay(healthy_seconds=90) is not None
    clock.now = 300
    assert backoff.next_delay(healthy_seconds=90) is None
    clock.now = 601
    assert backoff.next_delay(healthy_seconds=90) is not None


def test_server_that_hangs_again_and_again_is_fatal_despite_slow_restarts() -> None:
    clock = Clock()
    backoff = Backoff(max_restarts=10, clock=clock)
    waits = []
    for clock.now in range(0, 63 * 11, 63):  # each hang takes a minute to detect
        waits.append(backoff.next_delay(healthy_seconds=1))
    assert [wait is None for wait in waits] == [False] * 10 + [True]


def test_max_restarts_0_allows_no_restart() -> None:
    assert Backoff(max_restarts=0).next_delay(healthy_seconds=1000) is None


def test_status_of_a_dead_supervisor_is_stopped(tmp_path: Path) -> None:
    reporter = StatusReporter(main_server_spec(Settings(data_dir=tmp_path)))
    for state in (State.STARTING, State.LOADING, State.READY):
        reporter.enter(state)
    written = read_status(tmp_path)
    assert written is not None
    assert (written.state, written.supervisor_pid) == (State.READY, os.getpid())
    # The same pid with another start time: a reused pid.
    write_status(tmp_path, dataclasses.replace(written, supervisor_started=written.supervisor_started - 60, pid=1))
    read = read_status(tmp_path)
    assert read is not None
    assert (read.state, read.pid) == (State.STOPPED, None)


def test_fatal_reason_is_readable_after_the_supervisor_ended(tmp_path: Path) -> None:
    reporter = StatusReporter(main_server_spec(Settings(data_dir=tmp_path)))
    reporter.enter(State.FATAL, last_error="no such file")
    written = read_status_file(tmp_path)
    assert written is not None
    write_status(tmp_path, dataclasses.replace(written, supervisor_started=0.0))
    read = read_status(tmp_path)
    assert read is not None
    assert (read.state, read.last_error) == (State.FATAL, "no such file")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"state": "dancing"}'])
def test_invalid_status_file_is_no_status(tmp_path: Path, content: str) -> None:
    status_file(tmp_path).parent.mkdir()
    status_file(tmp_path).write_text(content, encoding="utf-8")
    assert read_status(tmp_path) is None


def test_process_identity_includes_the_start_time() -> None:
    own = identity_of(os.getpid())
    assert is_alive(own)
    assert not is_alive(own._replace(started=own.started - 1))


def test_server_command_contains_all_settings() -> None:
    settings = Settings(
        model_alias="mistral-7b-instruct,mistral", gpu_layers="20", context_size=8192, threads=6, api_threads=64
    )
    engine, model = Engine("llama-server", ("/opt/llama-server",)), Path("models", "m.gguf")
    command = server_command(main_server_spec(settings), engine, model, requested_step(settings))
    assert command[0] == "/opt/llama-server"
    assert command[-2:] == ["--metrics", "--slots"]
    assert dict(zip(command[1:-2:2], command[2:-2:2], strict=True)) == {
        "-m": str(model),
        "--host": "127.0.0.1",
        "--port": "8081",
        "-ngl": "20",
        "-c": "8192",
        "-b": "2048",
        "-t": "6",
        "-np": "4",
        "--alias": "mistral-7b-instruct,mistral",
        "--threads-http": "72",
    }


@pytest.mark.parametrize(
    ("threads", "processes", "expected"), [(64, 2, 136), (64, 64, 1032), (1024, 2, 1032), (16, 3, 56)]
)
def test_model_server_has_a_thread_for_each_connection_of_each_api_process(
    threads: int, processes: int, expected: int
) -> None:
    settings = Settings(api_threads=threads, api_processes=processes)
    engine = Engine("llama-server", ("/opt/llama-server",))
    command = server_command(main_server_spec(settings), engine, Path("m.gguf"), requested_step(settings))
    assert command[command.index("--threads-http") + 1] == str(expected)


def test_quantised_kv_cache_is_requested_with_flash_attention() -> None:
    engine, fit = Engine("llama-server", ("/opt/llama-server",)), MemoryStep("9", 4096, "q8_0")
    command = server_command(
        main_server_spec(Settings(gpu_layers="20", context_size=8192)), engine, Path("/models/m.gguf"), fit
    )
    flags = dict(zip(command[1:-2:2], command[2:-2:2], strict=True))
    assert (flags["-ngl"], flags["-c"]) == ("9", "4096")
    assert (flags["-ctk"], flags["-ctv"], flags["-fa"]) == ("q8_0", "q8_0", "on")


def test_every_state_has_an_exit_code_and_only_ready_has_0() -> None:
    assert set(EXIT_CODES) == set(State)
    assert [state for state, code in EXIT_CODES.items() if code == 0] == [State.READY]


def test_requests_wait_while_a_live_supervisor_starts_the_model_server(tmp_path: Path) -> None:
    reader, reporter = StatusReader(tmp_path), StatusReporter(main_server_spec(Settings(data_dir=tmp_path)))
    assert not reader.is_starting()
    for state, waits in ((State.STARTING, True), (State.LOADING, True), (State.READY, False)):
        reporter.enter(state)
        assert reader.is_starting() is waits
    written = read_status_file(tmp_path)
    assert written is not None
    gone = written.supervisor_started - 1
    write_status(tmp_path, dataclasses.replace(written, state=State.LOADING, supervisor_started=gone))
    assert not reader.is_starting()
    assert not reader.is_given_up()
    reporter.enter(State.FATAL)
    assert reader.is_given_up()


def test_full_disk_removes_the_status_file_instead_of_keeping_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = StatusReporter(main_server_spec(Settings(data_dir=tmp_path)))
    reporter.enter(State.STARTING)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("mistral_api.supervisor.status_reporter.write_status", full)
        reporter.enter(State.LOADING)
        assert read_status_file(tmp_path) is None
    reporter.retry_write()
    written = read_status_file(tmp_path)
    assert written is not None
    assert written.state is State.LOADING
