"""The processes that bin/serve starts: one that cannot be started is tried again, and the server goes on."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

from mistral_api.serving import supervisor_process
from mistral_api.serving.child_process import ChildProcess, start_python
from mistral_api.serving.supervisor_process import SupervisorProcess
from mistral_api.settings import Settings
from mistral_api.system.backoff import Backoff
from tests.support.processes import wait_for


class Starts:
    """Stands for ``subprocess.Popen``: the system has no process to give at first, then one that reads its input."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.commands: list[list[str]] = []
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self, command: list[str], **_options: Any) -> subprocess.Popen[bytes]:
        self.commands.append(command)
        if len(self.commands) <= self._failures:
            raise BlockingIOError("Resource temporarily unavailable")
        self.started.append(_real_popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        return self.started[-1]


_real_popen = subprocess.Popen


def _child(code: str, **options: Any) -> ChildProcess:
    """Return a child that runs this code in Python."""
    command = [sys.executable, "-c", code]
    return ChildProcess("it", lambda: _real_popen(command, stdin=subprocess.PIPE), meanwhile="we go on", **options)


def _looked_at(child: ChildProcess) -> ChildProcess:
    child.restart_if_ended()
    return child


def _wait_for_end(child: ChildProcess) -> None:
    wait_for(lambda: not child.running, "the end of the process")


def test_child_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = Starts(failures=2)
    monkeypatch.setattr(subprocess, "Popen", starts)
    child = ChildProcess("it", lambda: start_python(["no_module"]), meanwhile="we go on")
    child.start()

    def has_started() -> bool:
        child.restart_if_ended()
        return bool(starts.started)

    wait_for(has_started, "the third try")
    child.restart_if_ended()
    assert child.running
    child.stop(10)
    child.restart_if_ended()
    assert (len(starts.commands), starts.started[0].poll() is not None) == (3, True)
    assert caplog.text.count("it could not be started (Resource temporarily unavailable)") == 2
    assert caplog.text.count("and we go on") == 2


def test_child_that_ends_is_started_again_and_says_why_meanwhile() -> None:
    child = _child("raise SystemExit(7)")
    child.start()
    _wait_for_end(child)
    child.restart_if_ended()
    assert child.problem == "ended with exit code 7"
    wait_for(lambda: _looked_at(child).running, "the next start")
    child.stop(10)


def test_child_that_no_restart_would_help_is_left(caplog: pytest.LogCaptureFixture) -> None:
    started: list[float] = []

    class Backoffs(Backoff):
        def next_delay(self, healthy_seconds: float) -> float | None:
            started.append(healthy_seconds)
            return 0.0

    child = _child("raise SystemExit(7)", final_codes=(7,), backoff=Backoffs(1))
    child.start()
    _wait_for_end(child)
    child.restart_if_ended()
    child.restart_if_ended()
    assert (child.running, started) == (False, [])
    assert caplog.text.count("is not started again") == 1
    child.stop(10)


def test_child_is_asked_to_stop_before_its_input_ends() -> None:
    child = _child("import sys; raise SystemExit(sys.stdin.buffer.read(1) != b's')")
    child.start()
    child.ask_to_stop()
    _wait_for_end(child)
    child.ask_to_stop()  # to one that has ended it does nothing
    child.stop(10)


def test_child_that_was_to_end_and_does_not_is_killed_and_started_again() -> None:
    child = _child("import time; time.sleep(600)")
    child.start()
    child.end_soon(0.0)
    wait_for(lambda: _looked_at(child).problem, "the end of the process")
    assert "-" in (child.problem or "") or sys.platform == "win32"
    child.stop(10)


def test_supervisor_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = Starts(failures=1)
    monkeypatch.setattr(subprocess, "Popen", starts)
    monkeypatch.setattr(supervisor_process, "RESPAWN_SECONDS", 0.01)
    supervisor = SupervisorProcess(Settings(), ["--retry-gpu"])
    with caplog.at_level(logging.ERROR):
        supervisor.start()
        supervisor.require_alive()

    def has_started() -> bool:
        supervisor.restart_if_ended()
        return bool(starts.started)

    wait_for(has_started, "the second try")
    supervisor.stop()
    starts.started[0].communicate()
    assert ["--retry-gpu" in command for command in starts.commands] == [True, True]
    assert "the supervisor could not be started" in caplog.text
