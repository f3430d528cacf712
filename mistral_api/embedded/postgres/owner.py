"""Who stops the embedded PostgreSQL: a process, known by its pid and the time it started."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil


def _identity(pid: int) -> dict[str, float] | None:
    """A process's pid and start time, or None when there is none; a reused pid has another time."""
    try:
        return {"pid": pid, "started": psutil.Process(pid).create_time()}
    except psutil.NoSuchProcess:
        return None


def claim(owner_file: Path) -> None:
    """Record this process as the owner."""
    owner_file.write_text(json.dumps(_identity(os.getpid())), encoding="utf-8")


def living_owner(owner_file: Path) -> int | None:
    """The owner's pid, if it still lives."""
    try:
        recorded = json.loads(owner_file.read_text(encoding="utf-8"))
        pid = int(recorded["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return pid if _identity(pid) == recorded else None


def release(owner_file: Path) -> None:
    """Forget the owner."""
    owner_file.unlink(missing_ok=True)
