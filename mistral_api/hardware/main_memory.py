"""The main memory of this machine."""

from __future__ import annotations

import psutil


def total_memory_bytes() -> int:
    """Return the size of main memory and swap space together; without the latter where the system does not say.

    psutil reads it on Windows from the performance counters, which may be switched off, or damaged: RuntimeError.
    """
    try:
        swap: int = psutil.swap_memory().total
    except (RuntimeError, OSError):
        swap = 0
    return int(psutil.virtual_memory().total) + swap
