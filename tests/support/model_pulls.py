"""Download a small model from the hub of the tests, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mistral_api.downloads import download_folder
from mistral_api.downloads.errors import DownloadError
from mistral_api.model_files.hub import Hub
from mistral_api.model_files.known_models import parse_source
from mistral_api.model_files.pull import Puller, PullResult
from tests.support.gguf_files import random_model
from tests.support.model_hub import ModelHub

REPO = "someone/model-GGUF"
CONTENT = random_model(4)
HALF = (len(CONTENT) + 1) // 2


class RecordingDisplay:
    """A progress display that records what it is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.counts: list[int] = []

    def show(self, sentence: str) -> None:
        """Record a sentence."""
        self.sentences.append(sentence)

    @contextlib.contextmanager
    def progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that records the byte counts of a file."""
        assert name
        assert size
        yield self.counts.append


class InterruptingDisplay(RecordingDisplay):
    """A display that raises KeyboardInterrupt, as Ctrl-C does, when half of the content has arrived."""

    @contextlib.contextmanager
    def progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that interrupts at half of the file."""

        def received(count: int) -> None:
            if count == HALF:
                raise KeyboardInterrupt

        with super().progress(name, size):
            yield received


def pull_from(
    hub: ModelHub,
    folder: Path,
    source: str = f"{REPO}:m.gguf",
    revision: str = "main",
    display: RecordingDisplay | None = None,
    *,
    with_projector: bool = False,
) -> tuple[PullResult, RecordingDisplay]:
    """Pull a model from the hub into a folder, and return the result and the display."""
    display, client = display or RecordingDisplay(), Hub(hub.url)
    try:
        puller = Puller(client, folder, display)
        return puller.pull(parse_source(source, revision=revision), with_projector=with_projector), display
    finally:
        client.close()


def pull_error(hub: ModelHub, folder: Path, source: str = f"{REPO}:m.gguf", revision: str = "main") -> str:
    """Return the error of a pull that fails; no file may have its final name then."""
    with pytest.raises(DownloadError) as refused:
        pull_from(hub, folder, source, revision)
    assert not list(folder.glob("*.gguf"))
    return str(refused.value)


def partial_files(folder: Path) -> list[bytes]:
    """Return the contents of the unfinished files of a folder."""
    return [path.read_bytes() for path in (folder / download_folder.UNFINISHED_FOLDER).glob("*.part")]
