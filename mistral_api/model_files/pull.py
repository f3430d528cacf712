"""Pulling a model: from a source on the hub to a complete, checked model in a folder, and its lines for ``.env``.

Of a split model, the part that llama.cpp is given gets its name last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mistral_api.downloads.download_folder import DownloadFolder, FileKind, ProgressDisplay
from mistral_api.downloads.errors import DownloadError
from mistral_api.model_files.gguf import MAGIC, GgufError, read_header
from mistral_api.model_files.hub import Hub, RemoteFile
from mistral_api.model_files.known_models import ModelSource, NoSuchFile
from mistral_api.model_files.memory_estimate import ESTIMATE_CONTEXT, layers_by_card
from mistral_api.model_files.projectors import choose_projector, is_projector
from mistral_api.system.byte_sizes import format_size

# A value that needs no quotes in .env.
_PLAIN_VALUE = re.compile(r"[\w./:\\+@-]+")


def _complaint(path: Path) -> str | None:
    """Return why llama.cpp could not read a file's header, or None."""
    try:
        read_header(path)
    except GgufError as error:
        return str(error)
    return None


GGUF_FILE = FileKind("GGUF file, which is all that llama.cpp serves", MAGIC, _complaint)


@dataclass(frozen=True, slots=True)
class PullResult:
    """A complete model: the file for llama.cpp, and the size of all its parts in bytes; the same of its projector."""

    path: Path
    size: int
    projector: PullResult | None = None


class Puller:
    """Downloads models into one folder. Only one puller at a time may work there."""

    def __init__(self, hub: Hub, folder: Path, display: ProgressDisplay) -> None:
        self._hub = hub
        self._folder = DownloadFolder(folder, display)
        self._display = display

    def pull(self, source: ModelSource, *, with_projector: bool = False) -> PullResult:
        """Download what is missing of a model, and check it. Raises DownloadError.

        ``with_projector``: its projector too, where its repository has one.
        """
        parts = self._find_parts(source)
        projector = self._find_projector(parts[0].source) if with_projector else None
        files = parts if projector is None else [*parts, projector]
        with self._folder.exclusive():
            missing = [file for file in files if not self._folder.has(file)]
            self._folder.require_space(missing)
            for file in reversed(missing):
                self._folder.fetch(file, GGUF_FILE)
        beside = None if projector is None else PullResult(self._folder.path_of(projector), projector.size)
        return PullResult(self._folder.path_of(parts[0]), sum(part.size for part in parts), beside)

    def _find_projector(self, model: ModelSource) -> RemoteFile | None:
        """Return the projector of a model; None where there is none, or where the hub does not tell its files."""
        try:
            chosen = choose_projector(model, self._hub.list_gguf_files(model))
            return None if chosen is None else self._hub.find_file(chosen)
        except DownloadError as error:
            self._display.show(f"Whether the model has a projector, for images, is not known: {error}")
            return None

    def _find_parts(self, source: ModelSource) -> list[RemoteFile]:
        """Return all parts of the model, from one commit."""
        first, *others = source.parts()
        try:
            found = self._hub.find_file(first)
        except NoSuchFile as error:
            names = ", ".join(self._hub.list_gguf_files(source)) or "no GGUF file at all"
            raise NoSuchFile(f"{error} It has: {names}.") from error
        return [found, *(self._hub.find_file(other.with_revision(found.source.revision)) for other in others)]


def env_lines(source: ModelSource, result: PullResult) -> list[str]:
    """Return the lines of ``.env`` that serve a model: its path and alias, its projector, GPU_LAYERS of a known one."""
    if is_projector(source.file):
        return [_projector_line(result)]
    lines = [f"MODEL_PATH={_quoted(str(result.path.resolve()))}", f"MODEL_ALIAS={_quoted(source.alias)}"]
    if result.projector is not None:
        size = format_size(result.projector.size)
        lines += [
            f"# With its projector it sees images. Without this line it takes {size} less memory.",
            _projector_line(result.projector),
        ]
    if source.dimensions is None:
        return lines
    layers = layers_by_card(source.dimensions, result.size, beside=result.projector.size if result.projector else 0)
    cards = ", ".join(f"{number} on a card of {card} GB" for card, number in layers.items())
    return [
        *lines,
        "# All requests share the context.",
        f"CONTEXT_SIZE={ESTIMATE_CONTEXT}",
        f"# GPU_LAYERS that fit: {cards}",
        "GPU_LAYERS=auto",
    ]


def _projector_line(projector: PullResult) -> str:
    return f"LLAMA_ARG_MMPROJ={_quoted(str(projector.path.resolve()))}"


def _quoted(value: str) -> str:
    """Return a value as python-dotenv reads it back."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
