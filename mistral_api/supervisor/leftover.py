"""A model server that an earlier supervisor has left: recognised by number and start time, and ended."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import psutil

from mistral_api.process_identity import ProcessIdentity, is_alive
from mistral_api.supervisor.errors import CannotStart
from mistral_api.supervisor.files import MAIN
from mistral_api.supervisor.process import KILL_SECONDS, STOP_SECONDS
from mistral_api.supervisor.status import ModelServerStatus, read_recorded

log = logging.getLogger(__name__)


def stop_leftover(data_dir: Path, server: str = MAIN) -> None:
    """End the server that the status file names, with all it has started. Raises CannotStart where we may not."""
    recorded = read_recorded(data_dir, server)
    if recorded is None or recorded.server is None:
        return
    left = _left(recorded, recorded.server)
    if not left:
        return
    pids = ", ".join(str(process.pid) for process in left)
    log.warning("a model server (pid %s) was left by an earlier supervisor; it is ended", pids)
    try:
        _end(left)
    except psutil.AccessDenied as error:
        raise CannotStart(
            f"A model server (pid {pids}) that another account has started on this DATA_DIR still runs; end it first."
        ) from error


def _left(recorded: ModelServerStatus, server: ProcessIdentity) -> list[psutil.Process]:
    """The process itself, and what lives on of its session: a script may have started the real server.

    A session's number is not given out again while anyone is in it; the model in the command line tells it from one
    that has got the number since.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(server.pid)
        if is_alive(server):
            return [leader, *leader.children(recursive=True)]
        if leader.status() != psutil.STATUS_ZOMBIE:  # another process has the number now
            return []
    return [process for process in psutil.process_iter() if _belongs(process, server.pid, recorded.model_path)]


def _belongs(process: psutil.Process, session: int, model_path: str) -> bool:
    if sys.platform == "win32":
        return False
    try:
        return os.getsid(process.pid) == session and model_path in process.cmdline()
    except (ProcessLookupError, PermissionError, psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _end(processes: list[psutil.Process]) -> None:
    """Ask, wait, then kill."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=KILL_SECONDS)
