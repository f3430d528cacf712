"""Signals to a process that leads a group of its own, and so to all that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Any


def terminate_group(process: subprocess.Popen[Any]) -> None:
    """SIGTERM to the process and all it has started; on Windows what Ctrl-Break sends."""
    if sys.platform == "win32":
        try:
            process.send_signal(signal.CTRL_BREAK_EVENT)
        except OSError:  # a service has no console to send it through
            process.terminate()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def kill_group(process: subprocess.Popen[Any]) -> None:
    """The whole group at once; on Windows the process, and its job object the rest."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
