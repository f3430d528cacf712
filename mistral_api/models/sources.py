"""What is to be fetched: a repository on the hub, a revision of it, and the files there that make one model."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mistral_api.gguf_split import split_of
from mistral_api.models.errors import PullError
from mistral_api.models.known import DEFAULT_QUANT, known_model, model_in
from mistral_api.models.memory import Architecture

_GIVEN = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[^:]+\.gguf)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """One file on the hub. ``alias`` is how clients may call the model."""

    repo: str
    file: str
    revision: str
    alias: str

    @property
    def name(self) -> str:
        """The file's name without the folders that it lies in."""
        return self.file.rpartition("/")[2]

    @property
    def architecture(self) -> Architecture | None:
        """The model's measures, where it is a known one."""
        model = model_in(self.repo)
        return model.architecture if model else None

    def at(self, revision: str) -> Source:
        """The same file in another revision."""
        return replace(self, revision=revision)

    def parts(self) -> list[Source]:
        """All files of the model, the one to give llama.cpp first; more than one where it was split."""
        split = split_of(self.file)
        return [replace(self, file=name) for name in split.names()] if split else [self]


def source_of(given: str, quant: str | None = None, revision: str = "main") -> Source:
    """Read a known model's name, or ``owner/repository:file.gguf``. Raises PullError for what is neither."""
    if "/" not in given and ":" not in given:
        model = known_model(given)
        return Source(model.repo, model.file.format(quant=quant or DEFAULT_QUANT), revision, model.name)
    parsed = _GIVEN.fullmatch(given)
    # A backslash parts folders too on Windows; a control character has no business in a name.
    if not parsed or ".." in parsed["file"].split("/") or "\\" in given or not given.isprintable():
        raise PullError(f"'{given}' names no file: give owner/repository:file.gguf.")
    if quant:
        raise PullError("--quant goes with the name of a known model; here the file's name says it already.")
    file = parsed["file"]
    return Source(parsed["repo"], file, revision, _alias(file))


def _alias(file: str) -> str:
    split = split_of(file)
    stem = split.stem if split else file.removesuffix(".gguf")
    return stem.rpartition("/")[2].replace(",", "-")
