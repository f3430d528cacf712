"""Which process a pid meant: the number alone may have gone to another one since."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

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
