"""The processes of a running stack: the API, what delivers, and PostgreSQL; their processor time and their memory."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import psutil

from bench.running import RunningStack

# What a process is by its command line: the first that is in it.
API, DELIVERY = "API", "delivery"
ROLES = (
    ("mistral_api.serving.api_process", API),
    ("mistral_api.delivery_process", DELIVERY),
    ("mistral_api.supervisor", "supervisor"),
    ("mistral_api.embedded.engine.trial", "trial"),
    ("mistral_api.embedded.engine", "engine"),
    ("llama-server", "engine"),
)


def role_of(command: Sequence[str]) -> str | None:
    """Return what a process is by its command line, None for one that is no part of the stack."""
    return next((role for word, role in ROLES if any(word in part for part in command)), None)


class ProcessorTimes(NamedTuple):
    """Seconds of processor time that were used until now, or during something (``since``)."""

    api: float
    delivery: float
    database: float

    def since(self, before: ProcessorTimes) -> ProcessorTimes:
        """Return what was used since then."""
        return ProcessorTimes(*(now - then for now, then in zip(self, before, strict=True)))


def processes_of(running: RunningStack) -> list[tuple[str, psutil.Process]]:
    """Return the processes of a stack with their roles, without PostgreSQL's."""
    root = psutil.Process(running.process.pid)
    found = [(API, root)]
    for child in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if (role := role_of(child.cmdline())) is not None:
                found.append((role, child))
    return found


def processor_times(running: RunningStack) -> ProcessorTimes:
    """Return the processor time that the API, delivery and PostgreSQL have used."""
    found = processes_of(running)
    api, delivery = ([process for role, process in found if role == wanted] for wanted in (API, DELIVERY))
    return ProcessorTimes(_used(api), _used(delivery), _used(_database(running), ended=True))


def resident(running: RunningStack) -> dict[str, float]:
    """Return the resident memory of each process by its role, in MB; of several with one role the sum."""
    sizes: dict[str, float] = {}
    for role, process in processes_of(running):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes[role] = sizes.get(role, 0.0) + process.memory_info().rss / 2**20
    return sizes


def _database(running: RunningStack) -> list[psutil.Process]:
    """Return the processes of the embedded PostgreSQL, which is no child of the server."""
    found = list((running.data_dir / "postgres").rglob("postmaster.pid"))
    with contextlib.suppress(psutil.NoSuchProcess, OSError, ValueError, IndexError):
        postmaster = psutil.Process(int(found[0].read_text(encoding="ascii").split()[0]))
        return [postmaster, *postmaster.children(recursive=True)]
    return []


def _used(processes: Iterable[psutil.Process], *, ended: bool = False) -> float:
    """Return the processor time of processes; ``ended``: with that of their children that have ended."""
    seconds = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            times = process.cpu_times()
            seconds += _precise(process.pid) if sys.platform == "linux" else times.user + times.system
            seconds += (times.children_user + times.children_system) * ended
    return seconds


def _precise(pid: int) -> float:
    """Return a process's processor time by Linux's clock of it (clock_getcpuclockid(3)), which counts nanoseconds.

    The times of /proc count hundredths of a second, which is as much as ten requests take.
    """
    if sys.platform == "win32":
        return 0.0
    return time.clock_gettime(~pid << 3 | 2)
