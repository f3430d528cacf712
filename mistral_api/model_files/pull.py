"""From a source to a checked model in a folder; its lines for .env.

From a source to a whole, checked model in a folder.

What is not whole yet lies in ``FOLDER/.pull``, under its name and its content's hash: the same content goes on there
after any interruption, other content begins anew. A file gets its own name once its bytes are checked, and of a split
model the part that llama.cpp is given gets it last.

The lines of ``.env`` that serve a model which has just been fetched.
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

from mistral_api.model_files.gguf import MAGIC
from mistral_api.model_files.hub import Download, Hub, RemoteFile
from mistral_api.model_files.hub_errors import explain_disk_errors
from mistral_api.model_files.known_models import DamagedFile, ModelSource, NoSuchFile, PullError
from mistral_api.model_files.memory_estimate import ESTIMATE_CONTEXT, format_size, layers_by_card

UNFINISHED_FOLDER = ".pull"
SPARE_BYTES = 256 << 20  # left free on the disk, for whatever else writes there meanwhile


class ProgressDisplay(Protocol):
    """Whoever shows what goes on."""

    def show(self, sentence: str) -> None:
        """One line."""

    def progress(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Enter it for a file; what it gives is told how many bytes there are."""


@dataclass(frozen=True, slots=True)
class PullResult:
    """A model that is there: the file to give llama.cpp, and the bytes of all its parts."""

    path: Path
    size: int


class Puller:
    """Fetches into one folder, one puller at a time."""

    def __init__(self, hub: Hub, folder: Path, display: ProgressDisplay) -> None:
        self._hub = hub
        self._folder = folder
        self._unfinished = folder / UNFINISHED_FOLDER
        self._display = display

    def pull(self, source: ModelSource) -> PullResult:
        """Fetch what is missing of a model and check it. Raises PullError."""
        parts = self._look_up(source)
        with explain_disk_errors(self._folder):
            self._unfinished.mkdir(parents=True, exist_ok=True)
            with self._alone():
                missing = [part for part in parts if not self._is_there(part)]
                self._require_space(missing)
                for part in reversed(missing):
                    self._fetch(part)
        return PullResult(self._final(parts[0]), sum(part.size for part in parts))

    def _look_up(self, source: ModelSource) -> list[RemoteFile]:
        first, *others = source.parts()
        try:
            found = self._hub.find_file(first)
        except NoSuchFile as error:
            has = ", ".join(self._hub.list_gguf_files(source)) or "no GGUF file at all"
            raise NoSuchFile(f"{error} It has: {has}.") from error
        # All parts from the same commit.
        return [found, *(self._hub.find_file(other.with_revision(found.source.revision)) for other in others)]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with FileLock(self._unfinished / "lock", timeout=0):
                yield
        except Timeout as error:
            raise PullError(f"Another pull into {self._folder} is at work; wait for it, or give --dir.") from error

    def _is_there(self, part: RemoteFile) -> bool:
        path = self._final(part)
        if not path.exists():
            return False
        if path.stat().st_size == part.size and self._has_checksum(path, part):
            self._display.show(f"{path} is there already and whole.")
            return True
        self._display.show(f"{path} is not what {self._hub.host} has; it is replaced once the new file is whole.")
        return False

    def _require_space(self, missing: Sequence[RemoteFile]) -> None:
        """Whether what is still to come fits on the disk."""
        needed = sum(part.size - self._received(part) for part in missing)
        free = shutil.disk_usage(self._folder).free
        if needed and needed + SPARE_BYTES > free:
            raise PullError(
                f"{format_size(needed)} are still to come, but the disk of {self._folder} has {format_size(free)} free "
                f"({format_size(SPARE_BYTES)} of it are left alone): make room, or give --dir."
            )

    def _fetch(self, part: RemoteFile) -> None:
        partial, name = self._partial(part), part.source.name
        for stale in self._unfinished.glob(f"{glob.escape(name)}.*.part"):
            if stale != partial or stale.stat().st_size > part.size:
                stale.unlink()
        if begun := self._received(part):
            self._display.show(f"Going on with {name} at {format_size(begun)} of {format_size(part.size)}.")
        with self._display.progress(name, part.size) as received:
            received(begun)
            Download(self._hub, part, partial, received).run()
        try:
            self._require_sound(partial, part)
        except DamagedFile:
            partial.unlink()
            raise
        _write_through(partial)
        partial.replace(self._final(part))

    def _require_sound(self, path: Path, part: RemoteFile) -> None:
        name = part.source.name
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise DamagedFile(f"{name} is no GGUF file, which is all that llama.cpp serves; it has been removed.")
        if not self._has_checksum(path, part):
            raise DamagedFile(
                f"{name} does not have the SHA-256 that {self._hub.host} gives for it; it has been removed, "
                "run the command again."
            )

    def _has_checksum(self, path: Path, part: RemoteFile) -> bool:
        if part.sha256 is None:
            self._display.show(f"{self._hub.host} gives no SHA-256 for {part.source.name}: its size alone is checked.")
            return True
        self._display.show(f"Checking the SHA-256 of {part.source.name} ...")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == part.sha256

    def _received(self, part: RemoteFile) -> int:
        partial = self._partial(part)
        size = partial.stat().st_size if partial.exists() else 0
        return size if size <= part.size else 0

    def _partial(self, part: RemoteFile) -> Path:
        content = hashlib.sha256(part.etag.encode()).hexdigest()[:16]  # an ETag need not be fit for a file's name
        return self._unfinished / f"{part.source.name}.{content}.part"

    def _final(self, part: RemoteFile) -> Path:
        return self._folder / part.source.name


def _write_through(path: Path) -> None:
    """Onto the disk itself: a name must not outlive a power cut that its content does not."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


_PLAIN = re.compile(r"[\w./:\\+@-]+")


def env_lines(source: ModelSource, pulled: PullResult) -> list[str]:
    """MODEL_PATH and MODEL_ALIAS, and what is known of the layers that fit a card."""
    lines = [f"MODEL_PATH={_quoted(str(pulled.path.resolve()))}", f"MODEL_ALIAS={_quoted(source.alias)}"]
    if source.dimensions is None:
        return lines
    layers = layers_by_card(source.dimensions, pulled.size)
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
    """As python-dotenv reads it back."""
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
