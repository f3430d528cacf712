"""Models on the Hugging Face Hub: those known to work, and the source that ``mistral-api pull`` is given.

The known models are Mistral models in their usual quantisation. Their repositories, file names and sizes are those
that projects which download the same files publish, several projects for each. Their numbers of blocks and KV heads
and their head sizes are the models' own configuration. Another quantisation has another size, which the hub says when
the file is downloaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mistral_api.downloads.errors import DownloadError
from mistral_api.model_files.gguf import parse_split_name
from mistral_api.model_files.memory_estimate import ModelDimensions, bytes_for_all_layers, layers_by_card
from mistral_api.system.byte_sizes import GIB

DEFAULT_QUANT = "Q4_K_M"
TABLE_HEADERS = ("model", "file", "all layers", "4 GiB card", "6 GiB card", "8 GiB card", "repository")
# Windows opens a device for these names, whatever ending they have (Microsoft, "Naming Files, Paths, and Namespaces").
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:[. ].*)?", re.IGNORECASE)
_ODD_CHARACTERS = frozenset('\\<>"|?*')
_MOST_NAME_BYTES = 200
_FILE_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[^:]+\.gguf)", re.ASCII)


class UnknownModel(DownloadError):
    """The name is neither a known model's nor that of a file on the hub."""


class NoSuchFile(DownloadError):
    """The hub has the repository, but not this file in it."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model known to work.

    ``file``: its file name, with ``{quant}`` where the quantisation stands. ``file_bytes``: its size with the default
    quantisation.
    """

    name: str
    repo: str
    file: str
    file_bytes: int
    dimensions: ModelDimensions

    def row(self) -> tuple[str, ...]:
        """Return the cells for ``TABLE_HEADERS``; file and memory for all layers are in GiB."""
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
    """Return the model of this name. Raises UnknownModel, whose message names those known."""
    for model in KNOWN_MODELS:
        if model.name == name.lower():
            return model
    names = ", ".join(model.name for model in KNOWN_MODELS)
    raise UnknownModel(f"'{name}' is not known: give one of {names}, or owner/repository:file.gguf.")


def known_model_in(repo: str) -> KnownModel | None:
    """Return the known model that is in this repository, or None."""
    return next((model for model in KNOWN_MODELS if model.repo.lower() == repo.lower()), None)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One file on the hub, in one revision of a repository.

    ``alias``: the model id for clients. ``saved_name``: the name that it gets here, where that is another one.
    """

    repo: str
    file: str
    revision: str
    alias: str
    saved_name: str = ""

    @property
    def name(self) -> str:
        """The file's name here, without any folder."""
        return self.saved_name or self.file.rpartition("/")[2]

    @property
    def dimensions(self) -> ModelDimensions | None:
        """The size of the model, or None where it is not a known model."""
        model = known_model_in(self.repo)
        return model.dimensions if model else None

    def with_revision(self, revision: str) -> ModelSource:
        """Return the same file in another revision."""
        return replace(self, revision=revision)

    def parts(self) -> list[ModelSource]:
        """Return all files of the model, first the one for llama.cpp; more than one where the model is split."""
        split = parse_split_name(self.file)
        return [replace(self, file=name) for name in split.names()] if split else [self]


def parse_source(text: str, quant: str | None = None, revision: str = "main") -> ModelSource:
    """Read a known model's name, or ``owner/repository:file.gguf``. Raises DownloadError for anything else."""
    if "/" not in text and ":" not in text:
        model = find_known_model(text)
        known_file = model.file.format(quant=quant or DEFAULT_QUANT)
        if not _is_safe_file(known_file):
            raise DownloadError(f"--quant: '{printable(quant or '')}' is no name of a quantisation.")
        return ModelSource(model.repo, known_file, revision, model.name)
    parsed = _FILE_ON_HUB.fullmatch(text)
    if not parsed or not _is_safe_file(parsed["file"]) or not text.isprintable():
        raise DownloadError(f"'{printable(text)}' names no file: give owner/repository:file.gguf.")
    if quant:
        raise DownloadError("--quant goes with the name of a known model; here the file's name says it already.")
    file = parsed["file"]
    return ModelSource(parsed["repo"], file, revision, _alias(file))


def _is_safe_file(file: str) -> bool:
    """Return whether the path of a file on the hub has a name that every system takes as one, in its own folder."""
    *folders, name = file.split("/")
    odd = name.startswith(".") or _DEVICE.fullmatch(name) or len(name.encode("utf-8", "replace")) > _MOST_NAME_BYTES
    return not odd and ".." not in folders and _ODD_CHARACTERS.isdisjoint(file)


def printable(text: str, most: int = 200) -> str:
    """Return a text that came from elsewhere as a terminal may show it."""
    return "".join(each if each.isprintable() else "?" for each in text[:most])


def _alias(file: str) -> str:
    split = parse_split_name(file)
    stem = split.stem if split else file.removesuffix(".gguf")
    return stem.rpartition("/")[2].replace(",", "-")
