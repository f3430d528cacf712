"""Starts a program that dies with its parent (Linux). Run as a file, without the package, so that it starts fast.

``prctl(PR_SET_PDEATHSIG)`` survives ``execve`` (prctl(2)), so the program needs to know nothing of it. The program
keeps the pid of this process.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
SIGKILL = 9  # not in signal on Windows, where this module is imported and does nothing


def die_with_parent(parent_pid: int, signal_number: int) -> None:
    """Have the system send this process a signal when its parent dies; exit where the parent is dead already."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]), SIGKILL)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command is our own
