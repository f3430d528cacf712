"""Processes of ours: their output, their number, how they are asked to stop and killed, on every system."""

from __future__ import annotations

import locale
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import psutil
import pytest

from mistral_api.system import python_command
from mistral_api.system.parent_process import STARTER_VARIABLE, call_when_ended
from mistral_api.system.processes import (
    NEW_GROUP,
    ask_to_stop,
    hold_group,
    kill_group,
    run_command,
    terminate_group,
)
from mistral_api.system.python_command import without_launcher
from tests.support.processes import wait_for

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# Starts a process that lives on, with the output of this one, and ends.
LEAVES_A_PROCESS = f"import subprocess, sys; print(subprocess.Popen({SLEEP!r}).pid, flush=True)"


def start_group(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process that leads a group, as our own code does."""
    program, environment = without_launcher(command, os.environ)
    process = subprocess.Popen(
        program, env=environment, start_new_session=True, creationflags=NEW_GROUP, stdout=subprocess.PIPE
    )
    hold_group(process)
    return process


def test_command_that_leaves_a_process_with_its_output_returns_at_its_end() -> None:
    done = run_command([sys.executable, "-c", LEAVES_A_PROCESS], seconds=20)
    psutil.Process(int(done.stdout)).kill()
    assert done.returncode == 0


def test_output_of_a_command_is_text_whatever_its_bytes_are() -> None:
    program = (
        r"import sys; sys.stdout.buffer.write(b'a\x81\n'); sys.stderr.buffer.write(b'b'); sys.exit(sys.stdin.read())"
    )
    done = run_command([sys.executable, "-c", program], seconds=20, input="said")
    assert (done.stdout[0], done.stdout[-1], done.stderr[0]) == ("a", "\n", "b")
    assert done.stderr.endswith("said\n")
    with pytest.raises(subprocess.TimeoutExpired):
        run_command(SLEEP, seconds=0.2)


def test_started_python_is_the_process_whose_number_we_know() -> None:
    with start_group([sys.executable, "-c", "import os, sys; print(os.getpid(), sys.prefix)"]) as process:
        assert process.stdout is not None
        number, prefix = process.stdout.read().decode(locale.getencoding()).split(maxsplit=1)
    assert (int(number), prefix.strip()) == (process.pid, sys.prefix)


def test_python_behind_a_launcher_is_started_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_launcher(["llama-server", "-m"], None) == (["llama-server", "-m"], None)
    monkeypatch.setattr(python_command, "_program_behind_launcher", lambda: r"C:\Python311\python.exe")
    command, environment = without_launcher([sys.executable, "-m", "this"], {"A": "b"})
    assert command == [r"C:\Python311\python.exe", "-m", "this"]
    assert environment == {"A": "b", "__PYVENV_LAUNCHER__": sys.executable}
    assert without_launcher(["llama-server"], {"A": "b"}) == (["llama-server"], {"A": "b"})


def test_end_of_a_process_is_told_once_it_has_ended() -> None:
    told = threading.Event()
    with subprocess.Popen(SLEEP) as process:
        call_when_ended(psutil.Process(process.pid), told.set)
        assert not told.wait(0.3)
        process.kill()
    assert told.wait(10)
    told.clear()
    call_when_ended(None, told.set)
    assert told.wait(10)


def test_process_stops_in_order_when_the_command_that_waits_for_it_is_killed() -> None:
    """So does the server where ``bin/serve`` is killed, on Windows, where it is another process."""
    program = (
        "import os, queue; from mistral_api.system.processes import handle_stop_signals\n"
        "stops = queue.SimpleQueue(); handle_stop_signals(stops.put)\n"
        f"print(os.environ.get({STARTER_VARIABLE!r}), flush=True); print(int(stops.get(timeout=20)), flush=True)\n"
    )
    with subprocess.Popen(SLEEP) as starter:
        environment = os.environ | {STARTER_VARIABLE: str(starter.pid)}
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "None"
            starter.kill()
            starter.wait(timeout=10)
            assert process.stdout.readline().strip() == str(int(signal.SIGTERM))


def test_killed_group_leaves_nothing_that_it_has_started() -> None:
    with start_group([sys.executable, "-c", LEAVES_A_PROCESS + "; import time; time.sleep(60)"]) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        kill_group(process)
        wait_for(lambda: not runs(child), "the end of the child")


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("stop", [ask_to_stop, terminate_group])
def test_process_that_is_asked_to_stop_ends_by_the_signal(stop: object) -> None:
    number = "SIGBREAK" if sys.platform == "win32" else "SIGTERM"
    program = (
        f"import signal, sys, time; signal.signal(signal.{number}, lambda *_: sys.exit(7)); print('up', flush=True)\n"
        "while True: time.sleep(0.05)"
    )
    with start_group([sys.executable, "-c", program]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert callable(stop)
        stop(process)
        assert process.wait(timeout=20) in (7, 1)  # 1: Windows without a console ends it
