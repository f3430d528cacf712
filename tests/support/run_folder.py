"""The folder of a run of pytest, which all its processes share and its first one deletes, and the disk that tests use.

The disk is the memory, where there is enough of it: the tests copy and delete a database some hundred times, and
PostgreSQL and the journal wait for the disk at each commit. No process can tell the two apart, however it is killed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil

_VARIABLE = "TESTS_RUN_FOLDER"
_PREFIX = "mistral-api-run-"  # and the number of the first process
_MEMORY = Path("/dev/shm")  # noqa: S108 - a disk, not a file in it
# A run takes about one; in a container this disk is mostly small.
_NEEDED_BYTES = 4 * 2**30


def make_run_folder() -> Path:
    """Make the folder of the run, unless this is one of its workers; return a folder in it for this process alone."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        disk = _disk()
        _delete_left(disk)
        os.environ[_VARIABLE] = str(disk / f"{_PREFIX}{os.getpid()}")
        run_folder().mkdir(mode=0o755)
    folder = run_folder() / (worker or "first")
    folder.mkdir(mode=0o755, exist_ok=True)
    return folder


def _delete_left(disk: Path) -> None:
    """Delete the folders of runs that were killed."""
    for folder in disk.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX)
        if pid.isdecimal() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def _disk() -> Path:
    try:
        free = min(psutil.disk_usage(str(_MEMORY)).free, psutil.virtual_memory().available)
    except OSError:
        free = 0
    return _MEMORY if free >= _NEEDED_BYTES and os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())


def run_folder() -> Path:
    """Return the folder that the processes of this run share."""
    return Path(os.environ[_VARIABLE])


def delete_run_folder() -> None:
    """Delete the folder of the run, in its first process: workers may be ended before they come to that."""
    folder = os.environ.pop(_VARIABLE, None)
    if folder is not None and os.environ.get("PYTEST_XDIST_WORKER") is None:
        shutil.rmtree(folder, ignore_errors=True)
