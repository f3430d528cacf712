"""Processes: known by number and start time, run to their end, signalled with all that they have started.

On Windows a job object ends our children with us: it ends its processes when its last handle is closed (Microsoft's
"Job Objects", ``JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE``). A process puts itself into the job, so that whatever it starts
is in it from its first instruction. For Linux, ``supervisor.launcher`` does the same by other means.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import psutil

if sys.platform == "win32":
    import win32api
    import win32job

# Field 22 of /proc/PID/stat (proc_pid_stat(5)), counted from the state, which is the third.
_START_TIME = 22 - 3


class ProcessIdentity(NamedTuple):
    """A process, whose number alone may go to another one: the number, and the start time.

    The time is on a clock that nobody sets (Linux: ticks since the boot).
    """

    pid: int
    started: float


def identity_of(pid: int) -> ProcessIdentity:
    """Return the identity of a running process. Raises psutil.NoSuchProcess."""
    return ProcessIdentity(pid, _state_and_start(pid)[1])


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs; one that only waits to be reaped does not."""
    try:
        state, started = _state_and_start(identity.pid)
    except psutil.NoSuchProcess:
        return False
    return started == identity.started and state not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def _state_and_start(pid: int) -> tuple[str, float]:
    """Return the state in psutil's words, and the start time. Raises psutil.NoSuchProcess.

    psutil's start times on Linux follow the wall clock: a change of that would change every identity.
    """
    if sys.platform != "linux":
        process = psutil.Process(pid)
        return process.status(), process.create_time()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise psutil.NoSuchProcess(pid) from error
    fields = stat[stat.rindex(")") + 2 :].split()
    states = {"Z": psutil.STATUS_ZOMBIE, "X": psutil.STATUS_DEAD}
    return states.get(fields[0], psutil.STATUS_RUNNING), float(fields[_START_TIME])


class CommandOptions(TypedDict, total=False):
    """Where, with which input and as whom a command runs, in the words of subprocess.run."""

    cwd: Path | str
    env: Mapping[str, str]
    input: str
    user: int | None
    group: int | None
    extra_groups: Sequence[int] | None
    start_new_session: bool


def run_command(
    command: Sequence[str], seconds: float, **options: Unpack[CommandOptions]
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with its output as text. Raises OSError, and subprocess.TimeoutExpired."""
    options.setdefault("input", "")  # not our own, which may be a terminal
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False, **options
    )


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a command has written to its standard error stream, or its exit code where that is nothing."""
    return done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask this process to stop.

    Those of a terminal, SIGHUP (it was closed) and SIGQUIT, are among them unless they are ignored, as under nohup(1).
    Python reports SIGBREAK on Windows for Ctrl-Break, and for a console that is closed.
    """
    if sys.platform == "win32":
        return [signal.SIGTERM, signal.SIGINT, signal.SIGBREAK]
    of_terminal = [each for each in (signal.SIGHUP, signal.SIGQUIT) if signal.getsignal(each) != signal.SIG_IGN]
    return [signal.SIGTERM, signal.SIGINT, *of_terminal]


def handle_stop_signals(handler: Callable[[int], object]) -> None:
    """Call the handler with the number of each signal that asks this process to stop. Call this in the main thread."""
    for each in stop_signals():
        signal.signal(each, lambda number, _frame: handler(number))


def end_silently_at_interrupt() -> None:
    """Have Ctrl-C end this process without a traceback, until it handles signals itself: while modules are loaded."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def terminate_group(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Ask the process and all that it has started to end: SIGTERM to its group, on Windows Ctrl-Break."""
    if sys.platform == "win32":
        try:
            process.send_signal(signal.CTRL_BREAK_EVENT)
        except OSError:  # a service has no console to send it through
            process.terminate()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def kill_group(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Kill the process and all that it has started; on Windows its job object kills the others."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


# Open as long as this process lives. The job ends when it is closed.
_job: object = None


def end_children_with_this_process() -> None:
    """Have Windows end all processes started from now on when this one ends, however it ends. Elsewhere do nothing."""
    if sys.platform == "win32":
        global _job  # noqa: PLW0603 - one job for the process
        job: Any = win32job.CreateJobObject(None, "")  # type: ignore[func-returns-value] # the stubs say it returns none
        limits = win32job.QueryInformationJobObject(job, win32job.JobObjectExtendedLimitInformation)
        limits["BasicLimitInformation"]["LimitFlags"] |= win32job.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        win32job.SetInformationJobObject(job, win32job.JobObjectExtendedLimitInformation, limits)
        win32job.AssignProcessToJobObject(job, win32api.GetCurrentProcess())
        _job = job
