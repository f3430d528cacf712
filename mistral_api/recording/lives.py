"""Which processes that share a journal are alive: each holds a lock that the system releases when it dies."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

_FOLDER = "processes"


class Life:
    """This process's mark in the journal's folder, from its making to :meth:`close`.

    A name is never used twice, so that a process that has died is never mistaken for a living one.
    """

    def __init__(self, folder: Path) -> None:
        """Raises OSError where the folder cannot be written."""
        self._folder = folder / _FOLDER
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.name = uuid.uuid4().hex
        self._lock = FileLock(self._path(self.name), mode=0o600)
        self._lock.acquire(timeout=0)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    def has_ended(self, name: str) -> bool:
        """Whether the process of that name has died, or has closed the journal."""
        if name == self.name:
            return False
        try:
            with FileLock(self._path(name), timeout=0, mode=0o600):
                pass
        except Timeout:
            return False
        self._path(name).unlink(missing_ok=True)
        return True

    def alone(self) -> bool:
        """Whether no other process has the journal open; the marks of dead ones are removed."""
        others = [path.stem for path in self._folder.glob("*.lock") if path.stem != self.name]
        return len([name for name in others if self.has_ended(name)]) == len(others)

    def close(self) -> None:
        """Give the mark up."""
        self._lock.release()
        with contextlib.suppress(OSError):  # Windows keeps a file that somebody looks at: they remove it
            self._path(self.name).unlink(missing_ok=True)
