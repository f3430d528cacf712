"""Which processes that share a journal are alive: each holds a lock that the system releases when it dies."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

_FOLDER = "processes"
# Making a mark and looking at one take a moment: whoever does either keeps all others away.
_PATIENCE_SECONDS = 5


class ProcessLock:
    """This process's mark in the journal's folder, from its making to :meth:`close`.

    A name is never used twice, so that a process that has died is never mistaken for a living one.
    """

    def __init__(self, folder: Path) -> None:
        """Raises OSError where the folder cannot be written."""
        self._folder = folder / _FOLDER
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.name = uuid.uuid4().hex
        self._lock = FileLock(self._path(self.name), mode=0o600)
        with self._turn():
            self._lock.acquire(timeout=0)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    def _turn(self) -> FileLock:
        """Without it a mark that is just being made, and not held yet, would look like that of a dead process."""
        return FileLock(self._folder.with_name("processes.lock"), timeout=_PATIENCE_SECONDS, mode=0o600)

    def has_ended(self, name: str) -> bool:
        """Whether the process of that name has died, or has closed the journal. Raises OSError."""
        if name == self.name:
            return False
        with self._turn():
            try:
                with FileLock(self._path(name), timeout=0, mode=0o600):
                    pass
            except Timeout:
                return False
            self._path(name).unlink(missing_ok=True)
        return True

    def alone(self) -> bool:
        """Whether no other process has the journal open; the marks of dead ones are removed."""
        names = [path.stem for path in self._folder.glob("*.lock")]
        return {name for name in names if not self.has_ended(name)} <= {self.name}

    def close(self) -> None:
        """Give the mark up."""
        self._lock.release()
        with contextlib.suppress(OSError):  # Windows keeps a file that somebody looks at: they remove it
            self._path(self.name).unlink(missing_ok=True)
