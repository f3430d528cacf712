"""A model server that an earlier supervisor has left: recognised by number and start time, and ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import psutil

from mistral_api.supervisor.identity import is_alive
from mistral_api.supervisor.process import KILL_SECONDS, STOP_SECONDS
from mistral_api.supervisor.status import read_recorded

log = logging.getLogger(__name__)


def stop_leftover(data_dir: Path) -> None:
    """End the server that the status file names, with its group, if it is that very process still."""
    recorded = read_recorded(data_dir)
    if recorded is None or recorded.server is None or not is_alive(recorded.server):
        return
    log.warning("a model server (pid %d) was left by an earlier supervisor; it is ended", recorded.server.pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(recorded.server.pid)
        process.terminate()
        psutil.wait_procs([process], timeout=STOP_SECONDS)
        _kill_group(process)
        psutil.wait_procs([process], timeout=KILL_SECONDS)


def _kill_group(process: psutil.Process) -> None:
    """It leads a group of its own: what it has started goes with it."""
    if sys.platform == "win32":
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
