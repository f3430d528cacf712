"""What only Windows has: consoles and their events, and job objects."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

if sys.platform != "win32":
    pytest.skip("job objects and consoles are Windows'", allow_module_level=True)

import pywintypes
import win32api

from mistral_api.system import processes
from mistral_api.system.processes import terminate_group
from mistral_api.system.python_command import without_launcher
from tests.support.processes import wait_for
from tests.unit.test_processes import SLEEP, runs, start_group


def test_refused_ctrl_break_ends_the_process_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has no console to send it through; CPython 3.11 would raise SystemError."""

    def refuse(*_: object) -> None:
        raise pywintypes.error(6, "GenerateConsoleCtrlEvent", "The handle is invalid.")

    monkeypatch.setattr(win32api, "GenerateConsoleCtrlEvent", refuse)
    with start_group(SLEEP) as process:
        terminate_group(process)
        assert process.wait(timeout=10) != 0


def test_processes_in_our_job_end_with_us() -> None:
    program = (
        "import subprocess, sys; from mistral_api.system.processes import end_with_this_process\n"
        f"child = subprocess.Popen({SLEEP!r}); end_with_this_process(child.pid); print(child.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    command, environment = without_launcher([sys.executable, "-c", program], os.environ)
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.kill()
        wait_for(lambda: not runs(child), "the end of the child")


@pytest.mark.parametrize(("event", "stops", "handled"), [(0, 0, False), (1, 0, False), (2, 1, True), (5, 0, True),
                                                         (6, 1, True)])  # fmt: skip
def test_end_of_the_console_or_the_system_is_a_request_to_stop_and_a_logoff_is_none(
    monkeypatch: pytest.MonkeyPatch, event: int, stops: int, handled: bool
) -> None:
    monkeypatch.setattr(processes, "CLOSE_SECONDS", 0.0)
    received: list[int] = []
    assert processes._stop_on_console_event(event, received.append) is handled
    assert len(received) == stops


def test_processes_released_from_our_job_outlive_us_and_later_ones_do_not() -> None:
    program = (
        "import subprocess, sys\n"
        "from mistral_api.system.processes import end_with_this_process, outlive_this_process\n"
        f"first = subprocess.Popen({SLEEP!r}); end_with_this_process(first.pid); outlive_this_process()\n"
        f"second = subprocess.Popen({SLEEP!r}); end_with_this_process(second.pid)\n"
        "print(first.pid, second.pid, flush=True); sys.stdin.read()"
    )
    command, environment = without_launcher([sys.executable, "-c", program], os.environ)
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first, second = (psutil.Process(int(pid)) for pid in process.stdout.readline().split())
        process.kill()
        wait_for(lambda: not runs(second), "the end of the second child")
    assert runs(first)
    first.kill()
