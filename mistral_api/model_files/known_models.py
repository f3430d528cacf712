"""Known models; what is to be fetched.

What keeps a model from being fetched.

Mistral models on the Hugging Face Hub that are known to work, in their usual quantisation.

Repositories, file names and sizes are those that projects which download the same files publish, several for each;
blocks, KV heads and head sizes are the models' own configuration. Another quantisation has another size, which the hub
says when it is fetched.

What is to be fetched: a repository on the hub, a revision of it, and the files there that make one model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mistral_api.model_files.gguf import parse_split_name
from mistral_api.model_files.memory_estimate import GIB, ModelDimensions, bytes_for_all_layers, layers_by_card


class PullError(RuntimeError):
    """The model cannot be had; the message is one sentence for the operator. It never holds a token."""


class UnknownModel(PullError):
    """The name is neither that of a known model nor a file on the hub."""


class NoSuchFile(PullError):
    """The hub has the repository, but not this file in it."""


class DamagedFile(PullError):
    """What was received is not what the hub announced; it has been removed."""


DEFAULT_QUANT = "Q4_K_M"
TABLE_HEADERS = ("model", "file", "all layers", "4 GiB card", "6 GiB card", "8 GiB card", "repository")


@dataclass(frozen=True, slots=True)
class KnownModel:
    """``file`` has ``{quant}`` where the quantisation stands; ``file_bytes`` is the size of the default one."""

    name: str
    repo: str
    file: str
    file_bytes: int
    dimensions: ModelDimensions

    def row(self) -> tuple[str, ...]:
        """Name, GiB of the file, GiB for all layers, layers for each card, repository: as in ``HEADERS``."""
        needed = bytes_for_all_layers(self.dimensions, self.file_bytes)
        layers = layers_by_card(self.dimensions, self.file_bytes)
        return (self.name, f"{self.file_bytes / GIB:.1f}", f"{needed / GIB:.1f}", *layers.values(), self.repo)


KNOWN_MODELS = (
    KnownModel(
        "ministral-3b-instruct",
        "mistralai/Ministral-3-3B-Instruct-2512-GGUF",
        "Ministral-3-3B-Instruct-2512-{quant}.gguf",
        2_147_023_008,
        ModelDimensions(blocks=26, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "mistral-7b-instruct",
        "bartowski/Mistral-7B-Instruct-v0.3-GGUF",
        "Mistral-7B-Instruct-v0.3-{quant}.gguf",
        4_372_812_000,
        ModelDimensions(blocks=32, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "ministral-8b-instruct",
        "mistralai/Ministral-3-8B-Instruct-2512-GGUF",
        "Ministral-3-8B-Instruct-2512-{quant}.gguf",
        5_198_911_904,
        ModelDimensions(blocks=34, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "mistral-nemo-12b-instruct",
        "bartowski/Mistral-Nemo-Instruct-2407-GGUF",
        "Mistral-Nemo-Instruct-2407-{quant}.gguf",
        7_477_208_192,
        ModelDimensions(blocks=40, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "ministral-14b-instruct",
        "mistralai/Ministral-3-14B-Instruct-2512-GGUF",
        "Ministral-3-14B-Instruct-2512-{quant}.gguf",
        8_239_593_024,
        ModelDimensions(blocks=40, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "mistral-small-24b-instruct",
        "bartowski/mistralai_Mistral-Small-3.2-24B-Instruct-2506-GGUF",
        "mistralai_Mistral-Small-3.2-24B-Instruct-2506-{quant}.gguf",
        14_333_915_264,
        ModelDimensions(blocks=40, kv_heads=8, head_size=128),
    ),
)


def find_known_model(name: str) -> KnownModel:
    """The model of this name. Raises UnknownModel, which names those known."""
    for model in KNOWN_MODELS:
        if model.name == name.lower():
            return model
    names = ", ".join(model.name for model in KNOWN_MODELS)
    raise UnknownModel(f"'{name}' is not known: give one of {names}, or owner/repository:file.gguf.")


def known_model_in(repo: str) -> KnownModel | None:
    """The known model that this repository holds."""
    return next((model for model in KNOWN_MODELS if model.repo.lower() == repo.lower()), None)


_GIVEN = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[^:]+\.gguf)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelSource:
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
    def dimensions(self) -> ModelDimensions | None:
        """The model's measures, where it is a known one."""
        model = known_model_in(self.repo)
        return model.dimensions if model else None

    def with_revision(self, revision: str) -> ModelSource:
        """The same file in another revision."""
        return replace(self, revision=revision)

    def parts(self) -> list[ModelSource]:
        """All files of the model, the one to give llama.cpp first; more than one where it was split."""
        split = parse_split_name(self.file)
        return [replace(self, file=name) for name in split.names()] if split else [self]


def parse_source(text: str, quant: str | None = None, revision: str = "main") -> ModelSource:
    """Read a known model's name, or ``owner/repository:file.gguf``. Raises PullError for what is neither."""
    if "/" not in text and ":" not in text:
        model = find_known_model(text)
        return ModelSource(model.repo, model.file.format(quant=quant or DEFAULT_QUANT), revision, model.name)
    parsed = _GIVEN.fullmatch(text)
    # A backslash parts folders too on Windows; a control character has no business in a name.
    if not parsed or ".." in parsed["file"].split("/") or "\\" in text or not text.isprintable():
        raise PullError(f"'{text}' names no file: give owner/repository:file.gguf.")
    if quant:
        raise PullError("--quant goes with the name of a known model; here the file's name says it already.")
    file = parsed["file"]
    return ModelSource(parsed["repo"], file, revision, _alias(file))


def _alias(file: str) -> str:
    split = parse_split_name(file)
    stem = split.stem if split else file.removesuffix(".gguf")
    return stem.rpartition("/")[2].replace(",", "-")
