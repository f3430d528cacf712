"""Files replaced as a whole; DATA_DIR.

Small files that are replaced as a whole: a reader sees the old one or the new one.

The folder that holds all data of one server.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

WINDOWS_SECONDS = 2.0


def replace_file(path: Path, text: str) -> None:
    """Write a file that only its owner may read, making its folder if need be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    writing = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(writing, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)
    _replace(writing, path)


def _replace(written: Path, path: Path) -> None:
    """Windows refuses while somebody reads the old one, which nobody does for long."""
    deadline = time.monotonic() + WINDOWS_SECONDS
    while True:
        try:
            os.replace(written, path)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def make_data_dir(data_dir: Path) -> None:
    """Make DATA_DIR and its parents where they are missing; what exists keeps its mode. Raises OSError.

    Only its owner can list it. Made by root, others may pass through it: the embedded PostgreSQL runs
    under another account then, and every folder inside has a mode of its own.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    data_dir.mkdir(exist_ok=True, mode=0o711 if is_root() else 0o700)


def is_root() -> bool:
    """Whether this process runs as the superuser of a POSIX system."""
    if sys.platform == "win32":
        return False
    return os.geteuid() == 0
