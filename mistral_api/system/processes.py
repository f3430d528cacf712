"""Pid plus start time; process groups; Windows job.

Which process a pid meant: the number alone may have gone to another one since.

Signals to a process that leads a group of its own, and so to all that it has started.

Windows' way to leave no orphans: a job object whose processes end when its last handle is closed.

Job objects and ``JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE`` are described in Microsoft's "Job Objects". The supervisor puts
itself into the job, so that whatever it starts is in it from its first instruction. Elsewhere this does nothing:
``launcher`` has Linux's way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import psutil

# Field 22 of /proc/PID/stat (proc_pid_stat(5)), counted from the state, which is the third.
_START_TIME = 22 - 3


class ProcessIdentity(NamedTuple):
    """A process: its number, and when it started, on a clock that nobody sets (Linux: ticks since the boot)."""

    pid: int
    started: float


def identity_of(pid: int) -> ProcessIdentity:
    """The identity of a running process. Raises psutil.NoSuchProcess."""
    return ProcessIdentity(pid, _state_and_start(pid)[1])


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs; one that is only waiting to be reaped does not."""
    try:
        state, started = _state_and_start(identity.pid)
    except psutil.NoSuchProcess:
        return False
    return started == identity.started and state not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def _state_and_start(pid: int) -> tuple[str, float]:
    """psutil's start times on Linux follow the wall clock: setting that would make every process another one."""
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


def run_command(
    command: Sequence[str], seconds: float, **options: Unpack[CommandOptions]
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with its output as text. Raises OSError, and subprocess.TimeoutExpired."""
    options.setdefault("input", "")  # none of ours: a command must not read what is typed for us
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False, **options
    )


def terminate_group(process: subprocess.Popen[Any]) -> None:
    """SIGTERM to the process and all it has started; on Windows what Ctrl-Break sends."""
    if sys.platform == "win32":
        try:
            process.send_signal(signal.CTRL_BREAK_EVENT)
        except OSError:  # a service has no console to send it through
            process.terminate()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def kill_group(process: subprocess.Popen[Any]) -> None:
    """The whole group at once; on Windows the process, and its job object the rest."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


if sys.platform == "win32":
    import win32api
    import win32job

# Open as long as this process lives. The job ends when it is closed.
_job: object = None


def end_children_with_this_process() -> None:
    """Have the system end all processes started from now on when this one ends, however it ends."""
    if sys.platform == "win32":
        global _job  # noqa: PLW0603 - one job for the process
        job: Any = win32job.CreateJobObject(None, "")  # type: ignore[func-returns-value] # the stubs say it returns none
        limits = win32job.QueryInformationJobObject(job, win32job.JobObjectExtendedLimitInformation)
        limits["BasicLimitInformation"]["LimitFlags"] |= win32job.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        win32job.SetInformationJobObject(job, win32job.JobObjectExtendedLimitInformation, limits)
        win32job.AssignProcessToJobObject(job, win32api.GetCurrentProcess())
        _job = job
