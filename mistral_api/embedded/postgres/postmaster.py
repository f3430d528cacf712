"""The postmaster, PostgreSQL's first process: whether one runs on a cluster, and what a killed one leaves in the way.

``postmaster.pid`` and the lock file of the socket have its number in their first line (src/include/utils/pidfile.h of
PostgreSQL). PostgreSQL and pg_ctl take any process of that number for it (src/backend/utils/init/miscinit.c,
``CreateLockFile``), also one that has got the number since: after a power failure, or in a container, whose numbers are
the same at each start.
"""

from __future__ import annotations

import logging
from pathlib import Path

import psutil

from mistral_api.system.processes import ProcessIdentity, identity_of, is_alive

log = logging.getLogger(__name__)

PID_FILE = "postmaster.pid"


def running_postmaster(data: Path) -> ProcessIdentity | None:
    """Return the postmaster that runs on this cluster, or None."""
    pid = recorded_pid(data / PID_FILE)
    return None if pid is None or not _serves(pid, data) else _identity(pid)


def recorded_pid(lock_file: Path) -> int | None:
    """Return the number in a lock file; None where there is no file, or none that can be read.

    PostgreSQL's single-user mode writes it as a negative number.
    """
    try:
        return abs(int(lock_file.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]))
    except (OSError, ValueError):
        return None


def _identity(pid: int) -> ProcessIdentity | None:
    try:
        identity = identity_of(pid)
    except psutil.NoSuchProcess:
        return None
    return identity if is_alive(identity) else None


def _serves(pid: int, data: Path) -> bool:
    """Whether a process is a PostgreSQL that works in this folder, as a postmaster does; in doubt it is."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or not process.name().startswith("postgres"):
            return False
        return Path(process.cwd()).samefile(data)
    except (psutil.NoSuchProcess, ValueError):
        return False
    except (psutil.AccessDenied, OSError):
        return True


def remove_misleading_lock_files(data: Path, socket_lock: Path) -> None:
    """Remove lock files that would keep PostgreSQL from starting: they name another process that is alive, or none.

    The caller holds our own lock, and no postmaster runs. Processes of a killed postmaster that are still at work keep
    the next one from starting all the same: they are attached to the shared memory whose key is the cluster's inode
    (src/backend/port/sysv_shmem.c, ``PGSharedMemoryCreate``). Raises OSError.
    """
    for lock_file in (data / PID_FILE, socket_lock):
        pid = recorded_pid(lock_file)
        if lock_file.exists() and (pid is None or psutil.pid_exists(pid)):
            log.info("'%s' was left by a PostgreSQL that was killed; it is removed", lock_file)
            lock_file.unlink(missing_ok=True)
