"""A log file that one process writes, bounded in bytes and number, which a full disk cannot make fail.

Older lines are in ``NAME.1`` to ``NAME.5``. Several processes on one DATA_DIR have files of their own: who finds
``api.log`` taken writes ``api-2.log``. A forked child takes a file of its own with its first line.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_api.system.console_output import pieces
from mistral_api.system.files import open_private

if TYPE_CHECKING:
    from filelock import FileLock

FILE_BYTES, OLD_FILES = 10 << 20, 5
# So much is written at once at most.
PIECE_BYTES = 16 << 10
# So many processes on one DATA_DIR have a file each; what others log is on the console alone.
MOST_WRITERS = 64
# Of a file that cannot be set aside (Windows: another program has it open) no more than so many times its size is kept.
MOST_SIZES = 2


class TornWriteError(OSError):
    """The disk took only the beginning of what was to be written: so many whole lines."""

    def __init__(self, whole_lines: int) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.whole_lines = whole_lines


class RotatingFile:
    """The lines at ``path``. For one thread at a time; the file is opened by the first line."""

    def __init__(self, path: Path, most_bytes: int = FILE_BYTES, old_files: int = OLD_FILES) -> None:
        """``most_bytes``: the size at which the file is set aside; ``old_files``: how many older ones are kept."""
        self.path = path
        self._most_bytes = most_bytes
        self._old_files = old_files
        self._descriptor: int | None = None
        # At this size the file is set aside, or that is tried again.
        self._full_at = most_bytes
        self._size = 0
        # Whether the disk took only the beginning of the last line.
        self._torn = False

    def write(self, lines: bytes) -> None:
        """Append lines, each of which ends with a line break, in one write. Raises OSError."""
        descriptor = self.open() if self._descriptor is None else self._descriptor
        mended = b"\n" if self._torn else b""
        data = mended + lines
        written = os.write(descriptor, data)
        self._size += written
        self._torn = written < len(data)
        if self._torn:
            raise TornWriteError(max(0, data.count(b"\n", 0, written) - len(mended)))
        if self._size >= self._full_at:
            self._set_aside(descriptor)

    def open(self) -> int:
        """Open the file, and make it and its folder where they are missing. Return its descriptor. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = open_private(str(self.path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._descriptor, self._size, self._full_at = descriptor, os.fstat(descriptor).st_size, self._most_bytes
        return descriptor

    def _set_aside(self, descriptor: int) -> None:
        """Rename the files one further; the oldest one is replaced."""
        self._size = os.fstat(descriptor).st_size  # somebody may have emptied it
        if self._size < self._most_bytes:
            return
        self.close()
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, self._old_files + 1))]
        try:
            for newer, older in reversed(list(pairwise(names))):
                with suppress(FileNotFoundError):
                    os.replace(newer, older)
        except OSError:  # Windows: another program has one of them open
            self._go_on(self.open())

    def _go_on(self, descriptor: int) -> None:
        """Write on into a file that cannot be set aside, and begin it anew where it has become far too large."""
        if self._size >= MOST_SIZES * self._most_bytes:
            os.ftruncate(descriptor, 0)
            self._size = 0
        self._full_at = self._size + max(1, self._most_bytes // 10)

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class LogFileHandler(logging.Handler):
    """Writes events into a file that this process alone writes. What cannot be written is counted, and told."""

    def __init__(self, folder: Path, name: str, warn: Callable[..., None], most_bytes: int = FILE_BYTES) -> None:
        """``name`` without its number and suffix: ``api``. ``warn`` is called like a logger's ``warning``, each time.

        Nothing is opened before the first event.
        """
        super().__init__()
        # It brings asyncio. The engine and commands, which log into no file, are imported in half the time without. Not
        # later: the thread that writes may write at the end of the process, when nothing can be imported any more.
        self._filelock = importlib.import_module("filelock")
        self._folder = folder
        self._name = name
        self._warn = warn
        self._most_bytes = most_bytes
        self._file: RotatingFile | None = None
        # Held as long as this process writes the file, and by nobody else.
        self._file_lock: FileLock | None = None
        self._process = 0
        self._missing = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one event."""
        self.write([f"{self.format(record)}\n"])

    def write(self, lines: Sequence[str]) -> None:
        """Write lines, which have their own line breaks. For one thread at a time."""
        encoded = [line.encode(errors="backslashreplace") for line in lines]
        for piece in pieces(encoded, min(PIECE_BYTES, self._most_bytes)):
            try:
                if self._process != os.getpid():
                    self._claim()
                if self._file is not None:
                    self._file.write(piece)
            except OSError as error:
                self._tell(error, piece.count(b"\n"))

    def _tell(self, error: OSError, lines: int) -> None:
        """Count the lines that could not be written, and warn."""
        self._missing += lines - (error.whole_lines if isinstance(error, TornWriteError) else 0)
        reason = error.strerror or str(error)
        self._warn("the log in '%s' cannot be written: %s; %d lines are missing", self._folder, reason, self._missing)

    def _claim(self) -> None:
        """Take the first file that no other process writes. Raises OSError where the disk does not let us.

        A forked child leaves the file of its parent alone, and the lock of its parent locked.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._file is not None:
            self._file.close()
        self._file = self._free_file()
        self._process = os.getpid()
        if self._file is None:
            self._warn("%d processes write logs in '%s' already; this one writes none", MOST_WRITERS, self._folder)

    def _free_file(self) -> RotatingFile | None:
        for number in range(1, MOST_WRITERS + 1):
            name = self._name if number == 1 else f"{self._name}-{number}"
            lock = self._filelock.FileLock(self._folder / f"{name}.log.lock", timeout=0, mode=0o600)
            try:
                lock.acquire()
            except self._filelock.Timeout:
                continue
            self._file_lock = lock
            return RotatingFile(self._folder / f"{name}.log", self._most_bytes)
        return None

    def close(self) -> None:
        """Close the file, and let another process have it."""
        with self.lock or nullcontext():
            if self._file is not None:
                self._file.close()
            if self._file_lock is not None and self._process == os.getpid():
                self._file_lock.release()
        super().close()
