"""A lock for each process that shares a folder. The system releases it when the process dies, so that others can tell.

The journal uses it: the requests of a process that has died were interrupted.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_FOLDER = "processes"
# To make a lock file, or to test one, takes a moment, in which all others wait.
_EXCLUSIVE_TIMEOUT_SECONDS = 5


def acquire_if_free(lock: FileLock) -> bool:
    """Acquire a lock, and make its folder. Return False where another process holds the lock, or the disk fails."""
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire(timeout=0)
    except OSError:  # filelock's Timeout is one
        return False
    return True


class ProcessLock:
    """This process's lock file in the folder, until :meth:`close`.

    A name is never used twice, so that a process that has died is never mistaken for a living one. It begins with the
    role of its process, where that has one.
    """

    def __init__(self, folder: Path, role: str = "") -> None:
        """Take the lock. Raises OSError where the folder cannot be written."""
        self._folder = folder / _FOLDER
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.name = f"{role}{uuid.uuid4().hex}"
        self._lock = FileLock(self._path(self.name), mode=0o600)
        with self._exclusive():
            self._lock.acquire(timeout=0)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    def _exclusive(self) -> FileLock:
        """Let one process at a time work on the lock files.

        Without it, a lock file that is just being made and not locked yet would look like that of a dead process.
        """
        return FileLock(self._folder.with_name("processes.lock"), timeout=_EXCLUSIVE_TIMEOUT_SECONDS, mode=0o600)

    def has_ended(self, name: str) -> bool:
        """Whether the process of that name has died, or has closed its lock. Raises OSError."""
        if name == self.name:
            return False
        with self._exclusive():
            return self._remove_if_ended(name)

    def _remove_if_ended(self, name: str) -> bool:
        """Remove the lock file of a process that has ended. Return whether it has."""
        try:
            with FileLock(self._path(name), timeout=0, mode=0o600):
                pass
        except Timeout:
            return False
        self._path(name).unlink(missing_ok=True)
        return True

    @contextlib.contextmanager
    def excluding_others(self) -> Iterator[bool]:
        """Let no other process take a lock during the block, and give whether none holds one. Raises OSError."""
        with self._exclusive():
            others = {path.stem for path in self._folder.glob("*.lock")} - {self.name}
            yield not {name for name in others if not self._remove_if_ended(name)}

    def is_alone(self) -> bool:
        """Whether no other process holds a lock in the folder. The lock files of dead ones are removed."""
        with self.excluding_others() as alone:
            return alone

    def sees_others(self, *, without_roles: tuple[str, ...] = ()) -> bool:
        """Whether another process holds a lock in the folder. While none does, this costs a look at the folder alone.

        Processes that have one of the roles ``without_roles`` do not count. Raises OSError.
        """
        names = {path.stem for path in self._folder.glob("*.lock")} - {self.name}
        return self._lives_any(name for name in names if not name.startswith(without_roles))

    def may_see_others(self, *, without_role: str) -> bool:
        """Whether the folder has the lock of another process, living or dead, without that role. A look at the folder.

        It says so, too, where the folder cannot be read.
        """
        try:
            names = os.listdir(self._folder)
        except OSError:
            return True
        own = f"{self.name}.lock"
        return any(name != own and name.endswith(".lock") and not name.startswith(without_role) for name in names)

    def changed_at(self) -> int | None:
        """When a process last came to the folder, or left it: only the difference counts. None where nobody knows."""
        try:
            return os.stat(self._folder).st_mtime_ns
        except OSError:
            return None

    def sees_role(self, role: str) -> bool:
        """Whether another process that has a role holds a lock in the folder, as :meth:`sees_others`."""
        return self._lives_any({path.stem for path in self._folder.glob(f"{role}*.lock")} - {self.name})

    def _lives_any(self, names: Iterable[str]) -> bool:
        return any(not self.has_ended(name) for name in names)

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()
        with contextlib.suppress(OSError):  # Windows keeps a file that another process is testing: that one removes it
            self._path(self.name).unlink(missing_ok=True)
