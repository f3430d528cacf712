"""A folder that files are downloaded into.

An incomplete file lies in its folder ``.pull``, under the file's name and a hash of its content's identity: after an
interruption the same content is continued, and other content begins anew. A file gets its own name once its bytes are
checked.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from mistral_api.downloads.continued_download import ContinuedDownload, RemoteContent
from mistral_api.downloads.errors import DamagedFile, DownloadError, explain_disk_errors
from mistral_api.system.byte_sizes import format_size
from mistral_api.system.files import move_file

UNFINISHED_FOLDER = ".pull"
# Left free on the disk, for other programs that write there meanwhile.
SPARE_BYTES = 256 << 20


class ProgressDisplay(Protocol):
    """Shows the operator how a download proceeds."""

    def show(self, sentence: str) -> None:
        """Show one line."""

    def progress(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context manager for one file. It gives a function to call with the number of bytes received."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file is to be.

    ``words``: for messages. ``beginning``: its first bytes. ``complaint`` returns what is wrong with a file whose
    checksum fits, as words that follow its name, or None.
    """

    words: str
    beginning: bytes
    complaint: Callable[[Path], str | None]


class CheckedContent(RemoteContent, Protocol):
    """A file on a server that says what its content is.

    ``identity`` is the same for the same content only. ``sha256`` is None where the server does not say it.
    """

    @property
    def identity(self) -> str:
        """What tells its content from any other."""

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of its content in hexadecimal, or None."""


@contextlib.contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that files are downloaded into, as :meth:`DownloadFolder.exclusive` does."""
    with explain_disk_errors(folder):
        unfinished = folder / UNFINISHED_FOLDER
        unfinished.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(unfinished / "lock", timeout=0):
                yield
        except Timeout as error:
            raise DownloadError(f"Another download into {folder} is at work; wait for it.") from error


class DownloadFolder:
    """Downloads files into one folder. Only one process at a time may do that."""

    def __init__(self, folder: Path, display: ProgressDisplay) -> None:
        self._folder = folder
        self._unfinished_folder = folder / UNFINISHED_FOLDER
        self._display = display

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Make the folder, and hold its lock. An error of the disk within becomes a DownloadError.

        Raises DownloadError where another download holds it.
        """
        with exclusive_folder(self._folder):
            yield

    def path_of(self, remote: CheckedContent) -> Path:
        """Return where the complete file lies, or will."""
        return self._folder / remote.name

    def has(self, remote: CheckedContent) -> bool:
        """Return whether the file is there with the content that the server has."""
        path = self.path_of(remote)
        if not path.exists():
            return False
        if path.stat().st_size == remote.size and self._has_checksum(path, remote):
            self._display.show(f"{path} is there already and whole.")
            return True
        self._display.show(f"{path} is not what {remote.host} has; it is replaced once the new file is whole.")
        return False

    def require_space(self, missing: Iterable[CheckedContent]) -> None:
        """Raise DownloadError where the disk has no room for what is still to come."""
        needed = sum(remote.size - self._received_bytes(remote) for remote in missing)
        if needed:
            require_room(self._folder, needed, "still to come")

    def fetch(self, remote: CheckedContent, kind: FileKind) -> Path:
        """Download a file, check it, and give it its name; return its path.

        A damaged one is removed. Raises DownloadError, and OSError of the disk.
        """
        partial = self._partial_path(remote)
        for stale in self._unfinished_folder.glob(f"{glob.escape(remote.name)}.*.part"):
            if stale != partial or stale.stat().st_size > remote.size:
                stale.unlink()
        if received := self._received_bytes(remote):
            self._display.show(f"Going on with {remote.name} at {format_size(received)} of {format_size(remote.size)}.")
        with self._display.progress(remote.name, remote.size) as on_progress:
            on_progress(received)
            ContinuedDownload(remote, partial, on_progress).run()
        try:
            self._require_intact(partial, remote, kind)
        except DamagedFile:
            partial.unlink()
            raise
        _sync_to_disk(partial)
        path = self.path_of(remote)
        move_file(partial, path)
        return path

    def _require_intact(self, path: Path, remote: CheckedContent, kind: FileKind) -> None:
        """Raise DamagedFile where a downloaded file is not of its kind or has another checksum."""
        with path.open("rb") as file:
            if file.read(len(kind.beginning)) != kind.beginning:
                raise DamagedFile(f"{remote.name} is no {kind.words}; it has been removed.")
        if not self._has_checksum(path, remote):
            raise DamagedFile(
                f"{remote.name} does not have the SHA-256 that {remote.host} gives for it; it has been removed, "
                "run the command again."
            )
        if complaint := kind.complaint(path):
            raise DamagedFile(f"{remote.name} {complaint}; it has been removed.")

    def _has_checksum(self, path: Path, remote: CheckedContent) -> bool:
        if remote.sha256 is None:
            self._display.show(f"{remote.host} gives no SHA-256 for {remote.name}: its size alone is checked.")
            return True
        self._display.show(f"Checking the SHA-256 of {remote.name} ...")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == remote.sha256

    def _received_bytes(self, remote: CheckedContent) -> int:
        """Return how many bytes an earlier download has left; none where it left too many."""
        partial = self._partial_path(remote)
        size = partial.stat().st_size if partial.exists() else 0
        return size if size <= remote.size else 0

    def _partial_path(self, remote: CheckedContent) -> Path:
        # An identity may hold characters that a file's name cannot.
        content = hashlib.sha256(remote.identity.encode()).hexdigest()[:16]
        return self._unfinished_folder / f"{remote.name}.{content}.part"


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise DownloadError where a folder's disk has no room for so many bytes. ``what`` says what they are for."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise DownloadError(
            f"{format_size(needed)} are {what}, but the disk of {folder} has {format_size(free)} free "
            f"({format_size(SPARE_BYTES)} of it are left alone): make room, or choose another folder."
        )


def _sync_to_disk(path: Path) -> None:
    """Have the system write a file's content to the disk itself.

    Without that, a power cut could leave a file with its final name and without its content.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())
