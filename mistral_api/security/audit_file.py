"""A file of lines that several processes append to, and that is set aside when it is full."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mistral_api.system.files import move_file, open_private

FILE_BYTES, OLD_FILES = 10 << 20, 4
# How long a line waits while another process sets the file aside, or on Windows appends.
LOCK_SECONDS = 1.0


class AuditFile:
    """The newest lines at ``path``, older ones in ``path.1`` to ``path.4``. It holds nothing open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, line: bytes) -> None:
        """Append a line, in one write, so that lines of several processes do not mix. Raises OSError.

        On Windows a write that appends is two steps, to the end and then the write (Microsoft's documentation of
        ``_write``), between which another one could do the same; and a file that is being renamed cannot be opened.
        So there they take turns.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock() if sys.platform == "win32" else nullcontext():
            descriptor = open_private(str(self._path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(descriptor, line + b"\n")
                full = os.fstat(descriptor).st_size > FILE_BYTES
            finally:
                os.close(descriptor)
        if full:
            self._set_aside()

    def _lock(self) -> FileLock:
        return FileLock(f"{self._path}.lock", timeout=LOCK_SECONDS, mode=0o600)

    def lines(self) -> Iterator[bytes]:
        """Yield all lines, oldest first."""
        for path in [*reversed(self._old_paths()), self._path]:
            with suppress(FileNotFoundError), path.open("rb") as file:
                yield from file

    def _old_paths(self) -> list[Path]:
        """Return the paths of the older files, newest first."""
        return [self._path.with_name(f"{self._path.name}.{number}") for number in range(1, OLD_FILES + 1)]

    def _set_aside(self) -> None:
        """Rename the files one further; the oldest one is replaced. Another process that does it now is left alone."""
        with suppress(Timeout), self._lock():
            if self._path.stat().st_size <= FILE_BYTES:
                return
            paths = [self._path, *self._old_paths()]
            for older, newer in zip(reversed(paths[1:]), reversed(paths[:-1]), strict=True):
                with suppress(FileNotFoundError):
                    move_file(newer, older)
