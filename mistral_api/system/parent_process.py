"""The end of the process that started this one, on systems whose kernel does not tell it by a signal.

Linux does (``supervisor.launcher``). Windows lets a process wait for another one, which psutil does: no handle is lost,
and a number that another process has got meanwhile is not taken for the parent's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import psutil


def call_when_parent_ends(callback: Callable[[], object]) -> None:
    """Call the function, from another thread, once our parent has ended; at once where it has."""
    call_when_ended(psutil.Process().parent(), callback)


def call_when_ended(process: psutil.Process | None, callback: Callable[[], object]) -> None:
    """Call the function, from another thread, once a process has ended. None stands for one that has."""
    threading.Thread(target=_wait, args=(process, callback), name="parent-watch", daemon=True).start()


def _wait(process: psutil.Process | None, callback: Callable[[], object]) -> None:
    if process is not None:
        process.wait()
    callback()
