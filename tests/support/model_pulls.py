"""Fetching a small model from the hub of the tests, in this process."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mistral_api.model_files import pull
from mistral_api.model_files.hub import Hub
from mistral_api.model_files.known_models import PullError, parse_source
from mistral_api.model_files.pull import Puller, PullResult
from tests.support.model_hub import ModelHub

REPO = "someone/model-GGUF"
CONTENT = b"GGUF" + random.Random(4).randbytes(400_000)
HALF = (len(CONTENT) + 1) // 2


class Shown:
    """What the display was told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.counts: list[int] = []

    def show(self, sentence: str) -> None:
        self.sentences.append(sentence)

    @contextlib.contextmanager
    def progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        assert name
        assert size
        yield self.counts.append


class Interrupted(Shown):
    """Ctrl-C when half of the content is there."""

    @contextlib.contextmanager
    def progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        def received(count: int) -> None:
            if count == HALF:
                raise KeyboardInterrupt

        with super().progress(name, size):
            yield received


def pull_from(
    hub: ModelHub, folder: Path, given: str = f"{REPO}:m.gguf", revision: str = "main", shown: Shown | None = None
) -> tuple[PullResult, Shown]:
    shown, client = shown or Shown(), Hub(hub.url)
    try:
        return Puller(client, folder, shown).pull(parse_source(given, revision=revision)), shown
    finally:
        client.close()


def refusal_of(hub: ModelHub, folder: Path, given: str = f"{REPO}:m.gguf", revision: str = "main") -> str:
    """The sentence of a pull that fails; nothing has its final name then."""
    with pytest.raises(PullError) as refused:
        pull_from(hub, folder, given, revision)
    assert not list(folder.glob("*.gguf"))
    return str(refused.value)


def left_in(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / pull.UNFINISHED_FOLDER).glob("*.part")]
