"""The end of a process: everything in order, but for Python's own taking apart of what is in memory.

To take the modules of a server apart costs a fifth of a second of a processor, in the time in which whoever stops it
waits. The system frees the memory at once. Standard library alone: a program imports this before anything else, since
what is registered with ``atexit`` first is called last, when threads have ended and logs are written.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

_codes: list[int] = []


def end(code: int) -> NoReturn:
    """End this process with an exit code, as ``sys.exit`` does, but for the taking apart."""
    _codes.append(code)
    sys.exit(code)


def _leave() -> None:
    """End at once, where :func:`end` has begun it. An error that nobody has caught ends the process as ever."""
    if not _codes:
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(_codes[-1])


atexit.register(_leave)
