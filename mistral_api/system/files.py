"""Files: replaced as a whole, so that a reader sees the old one or the new one; and DATA_DIR, which holds all data."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# How long a replacement is tried again on Windows.
REPLACE_SECONDS = 2.0


def replace_file(path: Path, text: str) -> None:
    """Write a file that only its owner may read, and its folder where it is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(new, "w", encoding="utf-8", opener=open_private) as file:
            file.write(text)
        _replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _replace(new: Path, path: Path) -> None:
    """Rename the new file. Windows refuses while somebody reads the old one, which nobody does for long."""
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            os.replace(new, path)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def open_private(path: str, flags: int) -> int:
    """Open a file for ``open``; one that is made can be read by its owner alone."""
    return os.open(path, flags, 0o600)


def make_data_dir(data_dir: Path) -> None:
    """Make DATA_DIR and its parents where they are missing. A folder that exists keeps its mode. Raises OSError.

    Only its owner can list it. Where root makes it, others may pass through it: then the embedded PostgreSQL runs
    under another account. Every folder inside has a mode of its own.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    data_dir.mkdir(exist_ok=True, mode=0o711 if is_root() else 0o700)


def is_root() -> bool:
    """Whether this process runs as the superuser of a POSIX system."""
    if sys.platform == "win32":
        return False
    return os.geteuid() == 0
