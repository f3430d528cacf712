"""What would keep the supervisor and its model servers from starting, looked at before anything slow is started.

The supervisor looks at the same again, since much may happen meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from mistral_api.control.server_spec import ServerSpec, server_specs
from mistral_api.control.status import read_status_file, supervisor_lock_file
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.supervisor.preflight import require_free_port
from mistral_api.system.processes import is_alive

log = logging.getLogger(__name__)

# A supervisor whose bin/serve was killed saves the caches of conversations (15 s at most) and ends its model server.
ENDING_SECONDS = 60.0
POLL_SECONDS = 0.2


def require_startable(settings: Settings, api_port: int, stop_requested: Callable[[], bool]) -> None:
    """Raise StartError where another supervisor runs on this DATA_DIR, or a model server's port is in use.

    ``api_port``: the port that the API has already. Waits for the supervisor of a server that was killed, which is
    about to end, until ``stop_requested`` returns true.
    """
    _wait_for_supervisor(settings.data_dir, stop_requested)
    if stop_requested():
        return
    for spec in server_specs(settings):
        _require_free_port(spec, api_port)


def _wait_for_supervisor(data_dir: Path, stop_requested: Callable[[], bool]) -> None:
    deadline, said = time.monotonic() + ENDING_SECONDS, False
    while _is_locked(supervisor_lock_file(data_dir)) and not stop_requested():
        pid = _supervisor_pid(data_dir)
        if pid is not None and (not _was_left_behind(pid) or time.monotonic() >= deadline):
            raise StartError(
                f"DATA_DIR: another server, or bin/supervisor, runs on '{data_dir}' (process {pid}); stop it first, "
                "or give this one another folder with --data-dir."
            )
        if time.monotonic() >= deadline:
            raise StartError(f"DATA_DIR: another supervisor runs on '{data_dir}'; stop it first.")
        if pid is not None and not said:
            log.warning("a server on this DATA_DIR was killed; its supervisor (process %d) is about to end", pid)
            said = True
        time.sleep(POLL_SECONDS)


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # the supervisor will say what is wrong with the folder
        return False


def _supervisor_pid(data_dir: Path) -> int | None:
    """Return the process that has written the status file, where it runs; None for one that has not done so yet."""
    status = read_status_file(data_dir)
    return status.supervisor_pid if status is not None and is_alive(status.supervisor_process) else None


def _was_left_behind(pid: int) -> bool:
    """Whether a supervisor was started by a ``bin/serve`` that has died since."""
    try:
        supervisor = psutil.Process(pid)
        parent = supervisor.parent()
        return "--die-with-parent" in supervisor.cmdline() and (
            parent is None or "mistral_api.serving" not in parent.cmdline()
        )
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _require_free_port(spec: ServerSpec, api_port: int) -> None:
    settings = spec.settings
    if settings.model_server_socket is None and settings.model_server_port == api_port:
        raise StartError(f"{spec.port_setting}: {api_port} is the port of the API; choose another.")
    leftover = read_status_file(settings.data_dir, spec.name)
    if leftover is not None and leftover.server_process is not None and is_alive(leftover.server_process):
        return  # of a supervisor that was killed: the next one ends it
    require_free_port(spec)
