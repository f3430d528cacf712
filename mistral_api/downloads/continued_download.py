"""A download that goes on where it was: after a broken connection at once, after an interruption at the next run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mistral_api.downloads.errors import DamagedFile, DownloadError

# Seconds before each attempt that follows one without a single new byte. After the last of them it is given up.
PAUSES = (1.0, 2.0, 4.0)


class BrokenOff(Exception):
    """A transfer has ended too early, and may succeed when it is tried again. The message is for the operator."""


@dataclass(frozen=True, slots=True)
class FileBody:
    """The bytes of a file from ``start`` on. It is 0 where the server ignored the requested start."""

    start: int
    pieces: Iterator[bytes]


class RemoteContent(Protocol):
    """A file on a server, whose size is known."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    @property
    def host(self) -> str:
        """The host that has it, for messages."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def open_body(self, start: int) -> AbstractContextManager[FileBody]:
        """Request the bytes from ``start`` on.

        Within the context too it raises BrokenOff for what may be temporary, and DownloadError for what is not. No wait
        is without a deadline.
        """


class ContinuedDownload:
    """The download of one file to ``path``, which has the file's first bytes already where it exists.

    ``on_progress`` is called with the number of bytes in ``path`` whenever that changes.
    """

    def __init__(self, remote: RemoteContent, path: Path, on_progress: Callable[[int], None]) -> None:
        self._remote = remote
        self._path = path
        self._on_progress = on_progress

    def run(self) -> None:
        """Download until all bytes are there, and try again when a connection breaks.

        Raises DownloadError, and OSError of the disk. What has been received stays for the next download.
        """
        attempts_without_progress = 0
        with self._path.open("ab") as file:
            while (before := file.tell()) != self._remote.size:
                error = self._attempt(file, before)
                attempts_without_progress = 0 if file.tell() > before else attempts_without_progress + 1
                if error is not None and file.tell() != self._remote.size:
                    _pause(error, attempts_without_progress)

    def _attempt(self, file: BinaryIO, start: int) -> BrokenOff | None:
        """Write what comes from ``start`` on. Return what ended it too early."""
        try:
            with self._remote.open_body(start) as body:
                if body.start < start:
                    file.truncate(body.start)
                self._write(file, body.pieces)
        except BrokenOff as error:
            return error
        finally:
            file.seek(0, 2)
        return (
            None
            if file.tell() == self._remote.size
            else BrokenOff(f"{self._remote.host} sent too little of {self._remote.name}.")
        )

    def _write(self, file: BinaryIO, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            file.write(piece)
            size = file.tell()
            if size > self._remote.size:
                file.truncate(0)
                raise DamagedFile(f"{self._remote.host} sent more bytes of {self._remote.name} than it announced.")
            self._on_progress(size)


def _pause(error: BrokenOff, attempts_without_progress: int) -> None:
    """Wait before the next attempt. Raises DownloadError after too many attempts without progress."""
    if attempts_without_progress > len(PAUSES):
        raise DownloadError(str(error)) from error
    time.sleep(PAUSES[max(attempts_without_progress, 1) - 1])
