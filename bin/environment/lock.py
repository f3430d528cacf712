"""One process at a time works on ``.venv``; another waits until it is done.

pip inherits the lock (not on Windows), so that a pip whose parent was killed is waited for too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from environment.errors import SetupError
from environment.paths import LOCK

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

WAIT_SECONDS = 3600.0
POLL_SECONDS = 0.2


@contextmanager
def setup_lock() -> Iterator[int]:
    """Hold the lock and give its descriptor; say so once where somebody else holds it. Raises SetupError, OSError."""
    LOCK.parent.mkdir(exist_ok=True)
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait_for(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    told = False
    while not _lock(descriptor):
        if time.monotonic() > deadline:
            raise SetupError(
                f"Another process has been setting up '{LOCK.parent}' for an hour: end it, and start again."
            )
        if not told:
            print("Another process is setting up .venv; waiting until it is done.", flush=True)
            told = True
        time.sleep(POLL_SECONDS)


def _lock(descriptor: int) -> bool:
    """Try to take the lock; return whether it was free."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
