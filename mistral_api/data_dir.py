"""The folder that holds all data of one server."""

from __future__ import annotations

import os
import sys
from pathlib import Path


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
