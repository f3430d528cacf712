"""Which processes may use which cores, so that an engine does not compute where the server in front of it runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import psutil


def cores_apart() -> tuple[list[int], list[int]] | None:
    """Return the cores for an engine, and the one for everything else; None where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[:-1], cores[-1:]) if len(cores) > 1 else None


def pin(pid: int, cores: Sequence[int]) -> None:
    """Have every thread of a process, and those that they start from now on, run on these cores only."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for thread in psutil.Process(pid).threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cores)


@contextlib.contextmanager
def pinned_here(cores: Sequence[int]) -> Iterator[None]:
    """Have this process, and those that it starts in the block, run on these cores only."""
    before = os.sched_getaffinity(0)
    pin(os.getpid(), cores)
    try:
        yield
    finally:
        pin(os.getpid(), sorted(before))
