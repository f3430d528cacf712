"""Which process a pid meant: the number alone may have gone to another one since."""

from __future__ import annotations

from typing import NamedTuple

import psutil


class ProcessIdentity(NamedTuple):
    """A process: its number and the time the system says it started (Unix seconds)."""

    pid: int
    started: float


def identity_of(pid: int) -> ProcessIdentity:
    """The identity of a running process. Raises psutil.NoSuchProcess."""
    return ProcessIdentity(pid, psutil.Process(pid).create_time())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs; one that is only waiting to be reaped does not."""
    try:
        process = psutil.Process(identity.pid)
        return process.create_time() == identity.started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
