"""The end of the process that started this one, on systems whose kernel does not tell it by a signal.

Linux does (``supervisor.launcher``). Windows lets a process wait for another one, which psutil does: no handle is lost,
and a number that another process has got meanwhile is not taken for the parent's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import psutil

# bin/serve and bin/supervisor on Windows, which stay while what they have started runs, say so by their number here.
STARTER_VARIABLE = "MISTRAL_API_STARTER_PID"


def call_when_parent_ends(callback: Callable[[], object]) -> None:
    """Call the function, from another thread, once our parent has ended; at once where it has."""
    call_when_ended(psutil.Process().parent(), callback)


def call_when_starter_ends(callback: Callable[[], object]) -> None:
    """Call the function, from another thread, once the command in ``bin/`` has ended that waits for this process.

    Without such a command do nothing. What this process starts does not learn of it.
    """
    number = os.environ.pop(STARTER_VARIABLE, "")
    if number.isdigit():
        call_when_ended(_elder(int(number)), callback)


def _elder(pid: int) -> psutil.Process | None:
    """Return the process of that number, unless that has ended and a younger process than this one has it now."""
    try:
        process = psutil.Process(pid)
        return process if process.create_time() <= psutil.Process().create_time() else None
    except psutil.NoSuchProcess:
        return None


def call_when_ended(process: psutil.Process | None, callback: Callable[[], object]) -> None:
    """Call the function, from another thread, once a process has ended. None stands for one that has."""
    threading.Thread(target=_wait, args=(process, callback), name="parent-watch", daemon=True).start()


def _wait(process: psutil.Process | None, callback: Callable[[], object]) -> None:
    if process is not None:
        process.wait()
    callback()
