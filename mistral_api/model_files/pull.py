"""Pulling a model: from a source on the hub to a complete, checked model in a folder, and its lines for ``.env``.

An incomplete file lies in ``FOLDER/.pull``, under its name and a hash of its content's ETag: after an interruption the
same content is continued, and other content begins anew. A file gets its own name once its bytes are checked. Of a
split model, the part that llama.cpp is given gets its name last.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from mistral_api.model_files.gguf import MAGIC, GgufError, read_header
from mistral_api.model_files.hub import Download, Hub, RemoteFile
from mistral_api.model_files.hub_errors import explain_disk_errors
from mistral_api.model_files.known_models import DamagedFile, ModelSource, NoSuchFile, PullError
from mistral_api.model_files.memory_estimate import ESTIMATE_CONTEXT, format_size, layers_by_card
from mistral_api.system.files import move_file

UNFINISHED_FOLDER = ".pull"
# Left free on the disk, for other programs that write there meanwhile.
SPARE_BYTES = 256 << 20
# A value that needs no quotes in .env.
_PLAIN_VALUE = re.compile(r"[\w./:\\+@-]+")


class ProgressDisplay(Protocol):
    """Shows the operator how a pull proceeds."""

    def show(self, sentence: str) -> None:
        """Show one line."""

    def progress(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context manager for one file. It gives a function to call with the number of bytes received."""


@dataclass(frozen=True, slots=True)
class PullResult:
    """A complete model: the file for llama.cpp, and the size of all its parts in bytes."""

    path: Path
    size: int


class Puller:
    """Downloads models into one folder. Only one puller at a time may work there."""

    def __init__(self, hub: Hub, folder: Path, display: ProgressDisplay) -> None:
        self._hub = hub
        self._folder = folder
        self._unfinished_folder = folder / UNFINISHED_FOLDER
        self._display = display

    def pull(self, source: ModelSource) -> PullResult:
        """Download what is missing of a model, and check it. Raises PullError."""
        parts = self._find_parts(source)
        with explain_disk_errors(self._folder):
            self._unfinished_folder.mkdir(parents=True, exist_ok=True)
            with self._exclusive():
                missing = [part for part in parts if not self._is_complete(part)]
                self._require_space(missing)
                for part in reversed(missing):
                    self._download(part)
        return PullResult(self._final_path(parts[0]), sum(part.size for part in parts))

    def _find_parts(self, source: ModelSource) -> list[RemoteFile]:
        """Return all parts of the model, from one commit."""
        first, *others = source.parts()
        try:
            found = self._hub.find_file(first)
        except NoSuchFile as error:
            names = ", ".join(self._hub.list_gguf_files(source)) or "no GGUF file at all"
            raise NoSuchFile(f"{error} It has: {names}.") from error
        return [found, *(self._hub.find_file(other.with_revision(found.source.revision)) for other in others)]

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the folder's lock. Raises PullError where another pull holds it."""
        try:
            with FileLock(self._unfinished_folder / "lock", timeout=0):
                yield
        except Timeout as error:
            raise PullError(f"Another pull into {self._folder} is at work; wait for it, or give --dir.") from error

    def _is_complete(self, part: RemoteFile) -> bool:
        """Return whether the part has its final name and the hub's content."""
        path = self._final_path(part)
        if not path.exists():
            return False
        if path.stat().st_size == part.size and self._has_checksum(path, part):
            self._display.show(f"{path} is there already and whole.")
            return True
        self._display.show(f"{path} is not what {self._hub.host} has; it is replaced once the new file is whole.")
        return False

    def _require_space(self, missing: Sequence[RemoteFile]) -> None:
        """Raise PullError where the disk has no room for what is still to come."""
        needed = sum(part.size - self._received_bytes(part) for part in missing)
        free = shutil.disk_usage(self._folder).free
        if needed and needed + SPARE_BYTES > free:
            raise PullError(
                f"{format_size(needed)} are still to come, but the disk of {self._folder} has {format_size(free)} free "
                f"({format_size(SPARE_BYTES)} of it are left alone): make room, or give --dir."
            )

    def _download(self, part: RemoteFile) -> None:
        partial, name = self._partial_path(part), part.source.name
        for stale in self._unfinished_folder.glob(f"{glob.escape(name)}.*.part"):
            if stale != partial or stale.stat().st_size > part.size:
                stale.unlink()
        if received := self._received_bytes(part):
            self._display.show(f"Going on with {name} at {format_size(received)} of {format_size(part.size)}.")
        with self._display.progress(name, part.size) as on_progress:
            on_progress(received)
            Download(self._hub, part, partial, on_progress).run()
        try:
            self._require_intact(partial, part)
        except DamagedFile:
            partial.unlink()
            raise
        _sync_to_disk(partial)
        move_file(partial, self._final_path(part))

    def _require_intact(self, path: Path, part: RemoteFile) -> None:
        """Raise DamagedFile where a downloaded file is no whole GGUF file or has another checksum."""
        name = part.source.name
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise DamagedFile(f"{name} is no GGUF file, which is all that llama.cpp serves; it has been removed.")
        if not self._has_checksum(path, part):
            raise DamagedFile(
                f"{name} does not have the SHA-256 that {self._hub.host} gives for it; it has been removed, "
                "run the command again."
            )
        try:
            read_header(path)
        except GgufError as error:
            raise DamagedFile(f"{name} {error}; it has been removed.") from error

    def _has_checksum(self, path: Path, part: RemoteFile) -> bool:
        if part.sha256 is None:
            self._display.show(f"{self._hub.host} gives no SHA-256 for {part.source.name}: its size alone is checked.")
            return True
        self._display.show(f"Checking the SHA-256 of {part.source.name} ...")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == part.sha256

    def _received_bytes(self, part: RemoteFile) -> int:
        """Return how many bytes an earlier download has left; none where it left too many."""
        partial = self._partial_path(part)
        size = partial.stat().st_size if partial.exists() else 0
        return size if size <= part.size else 0

    def _partial_path(self, part: RemoteFile) -> Path:
        # An ETag may hold characters that a file's name cannot.
        content = hashlib.sha256(part.etag.encode()).hexdigest()[:16]
        return self._unfinished_folder / f"{part.source.name}.{content}.part"

    def _final_path(self, part: RemoteFile) -> Path:
        return self._folder / part.source.name


def _sync_to_disk(path: Path) -> None:
    """Have the system write a file's content to the disk itself.

    Without that, a power cut could leave a file with its final name and without its content.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def env_lines(source: ModelSource, result: PullResult) -> list[str]:
    """Return the lines of ``.env`` that serve a model: its path and alias, and the GPU_LAYERS of a known model."""
    lines = [f"MODEL_PATH={_quoted(str(result.path.resolve()))}", f"MODEL_ALIAS={_quoted(source.alias)}"]
    if source.dimensions is None:
        return lines
    layers = layers_by_card(source.dimensions, result.size)
    cards = ", ".join(f"{number} on a card of {card} GB" for card, number in layers.items())
    return [
        *lines,
        "# PARALLEL requests share the context: one at a time has all of it.",
        f"CONTEXT_SIZE={ESTIMATE_CONTEXT}",
        "PARALLEL=1",
        f"# GPU_LAYERS that fit: {cards}",
        "GPU_LAYERS=auto",
    ]


def _quoted(value: str) -> str:
    """Return a value as python-dotenv reads it back."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
