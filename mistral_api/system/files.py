"""Files: replaced as a whole, so that a reader sees the old one or the new one; and DATA_DIR, which holds all data."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

# Windows neither renames nor removes a file that somebody has open without allowing that, as Python's own files are
# and those that a virus scanner looks at. That is mostly over soon, so it is tried again for so long.
if sys.platform == "win32":
    RETRY_SECONDS, BINARY = 2.0, os.O_BINARY
else:
    RETRY_SECONDS, BINARY = 0.0, 0


def replace_file(path: Path, text: str) -> None:
    """Write a file that only its owner may read, and its folder where it is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(new, "w", encoding="utf-8", opener=open_private) as file:
            file.write(text)
        move_file(new, path)
    except OSError:
        remove_file(new)
        raise


class ReplacedFile(Generic[T]):
    """What a file says that other processes replace. It is read only after a change, so each request may ask it."""

    def __init__(self, path: Path, read: Callable[[], T], absent: T, *, unasked_seconds: float = 0.0) -> None:
        """``read`` reads the file and raises nothing; ``absent`` stands for a file that is not there.

        For ``unasked_seconds`` after the disk was asked, it is not asked again.
        """
        self._path = os.fspath(path)
        self._unasked_seconds = unasked_seconds
        self._asks_again_at = float("-inf")
        self._read_file = read
        self._absent = absent
        # The file's version and what it says: one tuple, replaced at once, since many threads read it.
        self._read: tuple[tuple[int, int] | None, T] = (None, absent)

    def current(self) -> T:
        """Return what the file says now."""
        if self._unasked_seconds:
            now = time.monotonic()
            if now < self._asks_again_at:
                return self._read[1]
            self._asks_again_at = now + self._unasked_seconds
        try:
            found = os.stat(self._path)
        except OSError:
            self._read = None, self._absent
            return self._absent
        version = found.st_mtime_ns, found.st_ino
        if self._read[0] != version:
            self._read = version, self._read_file()
        return self._read[1]


def move_file(source: Path, target: Path) -> None:
    """Rename a file, or a folder, to a name on the same disk, instead of a file that has it. Raises OSError."""
    _retry(lambda: os.replace(source, target))


def remove_file(path: Path) -> None:
    """Remove a file, where it exists. Raises OSError."""
    _retry(lambda: path.unlink(missing_ok=True))


def _retry(change: Callable[[], object]) -> None:
    """Try again for RETRY_SECONDS what the system refuses because the file is open. Raises OSError."""
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            change()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)
        else:
            return


def open_private(path: str, flags: int) -> int:
    """Open a file for ``open`` or ``os.write``; one that is made can be read by its owner alone.

    Its bytes are written as they are, also where ``os.write`` would make two of a line break (Windows).
    """
    return os.open(path, flags | BINARY, 0o600)


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
