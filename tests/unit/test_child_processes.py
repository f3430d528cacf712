"""The processes that bin/serve starts: one that cannot be started is tried again, and the server goes on."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

from mistral_api.serving import supervisor_process
from mistral_api.serving.delivery_child import DeliveryChild
from mistral_api.serving.supervisor_process import SupervisorProcess
from mistral_api.settings import Settings
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


def test_delivery_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = Starts(failures=2)
    monkeypatch.setattr(subprocess, "Popen", starts)
    child = DeliveryChild()
    child.start()

    def has_started() -> bool:
        child.restart_if_ended()
        return bool(starts.started)

    wait_for(has_started, "the third try")
    child.restart_if_ended()
    child.stop()
    child.restart_if_ended()
    assert (len(starts.commands), starts.started[0].poll() is not None) == (3, True)
    assert caplog.text.count("could not be started (Resource temporarily unavailable)") == 2


def test_supervisor_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = Starts(failures=1)
    monkeypatch.setattr(subprocess, "Popen", starts)
    monkeypatch.setattr(supervisor_process, "RESPAWN_SECONDS", 0.01)
    supervisor = SupervisorProcess(Settings(), retry_gpu=True)
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
