"""Mistral models on the Hugging Face Hub that are known to work, in their usual quantisation.

Repositories, file names and sizes are those that projects which download the same files publish, several for each;
blocks, KV heads and head sizes are the models' own configuration. Another quantisation has another size, which the hub
says when it is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass

from mistral_api.models.errors import UnknownModel
from mistral_api.models.memory import Architecture, bytes_for_all_layers, layers_by_card
from mistral_api.models.sizes import GIB

DEFAULT_QUANT = "Q4_K_M"
HEADERS = ("model", "file", "all layers", "4 GiB card", "6 GiB card", "8 GiB card", "repository")


@dataclass(frozen=True, slots=True)
class KnownModel:
    """``file`` has ``{quant}`` where the quantisation stands; ``file_bytes`` is the size of the default one."""

    name: str
    repo: str
    file: str
    file_bytes: int
    architecture: Architecture

    def row(self) -> tuple[str, ...]:
        """Name, GiB of the file, GiB for all layers, layers for each card, repository: as in ``HEADERS``."""
        needed = bytes_for_all_layers(self.architecture, self.file_bytes)
        layers = layers_by_card(self.architecture, self.file_bytes)
        return (self.name, f"{self.file_bytes / GIB:.1f}", f"{needed / GIB:.1f}", *layers.values(), self.repo)


KNOWN = (
    KnownModel(
        "ministral-3b-instruct",
        "mistralai/Ministral-3-3B-Instruct-2512-GGUF",
        "Ministral-3-3B-Instruct-2512-{quant}.gguf",
        2_147_023_008,
        Architecture(blocks=26, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "mistral-7b-instruct",
        "bartowski/Mistral-7B-Instruct-v0.3-GGUF",
        "Mistral-7B-Instruct-v0.3-{quant}.gguf",
        4_372_812_000,
        Architecture(blocks=32, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "ministral-8b-instruct",
        "mistralai/Ministral-3-8B-Instruct-2512-GGUF",
        "Ministral-3-8B-Instruct-2512-{quant}.gguf",
        5_198_911_904,
        Architecture(blocks=34, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "mistral-nemo-12b-instruct",
        "bartowski/Mistral-Nemo-Instruct-2407-GGUF",
        "Mistral-Nemo-Instruct-2407-{quant}.gguf",
        7_477_208_192,
        Architecture(blocks=40, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "ministral-14b-instruct",
        "mistralai/Ministral-3-14B-Instruct-2512-GGUF",
        "Ministral-3-14B-Instruct-2512-{quant}.gguf",
        8_239_593_024,
        Architecture(blocks=40, kv_heads=8, head_size=128),
    ),
    KnownModel(
        "mistral-small-24b-instruct",
        "bartowski/mistralai_Mistral-Small-3.2-24B-Instruct-2506-GGUF",
        "mistralai_Mistral-Small-3.2-24B-Instruct-2506-{quant}.gguf",
        14_333_915_264,
        Architecture(blocks=40, kv_heads=8, head_size=128),
    ),
)


def known_model(name: str) -> KnownModel:
    """The model of this name. Raises UnknownModel, which names those known."""
    for model in KNOWN:
        if model.name == name.lower():
            return model
    names = ", ".join(model.name for model in KNOWN)
    raise UnknownModel(f"'{name}' is not known: give one of {names}, or owner/repository:file.gguf.")


def model_in(repo: str) -> KnownModel | None:
    """The known model that this repository holds."""
    return next((model for model in KNOWN if model.repo.lower() == repo.lower()), None)
