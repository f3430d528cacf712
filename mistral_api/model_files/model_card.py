"""What a model's file says about the model, for those who list and describe models; read again when the file changes.

The names that Ollama would give a model follow from its metadata: the library there has ``smollm2:135m`` and
``mistral:7b-instruct-v0.3-q4_K_M`` (GGUF's specification, ggml, docs/gguf.md: ``general.basename``, ``size_label``).
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mistral_api.errors import StartError
from mistral_api.model_files.gguf import GgufError, MetadataValue, read_header
from mistral_api.model_files.served_model import ModelInfo, read_model, served_model_path
from mistral_api.settings import Settings

_NO_NAME = re.compile(r"[^a-z0-9.]+")
# The metadata of a model that can fill a gap has one of these tokens (llama.cpp, src/llama-vocab.cpp).
_FILL_TOKENS = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model by its file. ``modified``: Unix seconds; ``digest``: tells this file from others, 64 hexadecimal digits,
    without having read all of it."""

    info: ModelInfo
    metadata: Mapping[str, MetadataValue]
    modified: float
    digest: str

    @property
    def family(self) -> str:
        """The architecture, such as ``llama``."""
        return self.info.architecture or "unknown"

    @property
    def fills_gaps(self) -> bool:
        """Whether its file names tokens for a gap in a text."""
        return any(name in self.metadata for name in _FILL_TOKENS)

    def is_named(self, name: str) -> bool:
        """Whether Ollama's library could have it under this name, in lower case: ``BASE``, or ``BASE:SIZE…``."""
        base, _, tag = name.partition(":")
        own_base, size = (_slug(self.metadata.get(f"general.{key}")) for key in ("basename", "size_label"))
        return bool(own_base) and base == own_base and (not tag or f"{tag}-".startswith(f"{size}-"))


def _slug(value: MetadataValue | None) -> str:
    return _NO_NAME.sub("-", value.lower()).strip("-") if isinstance(value, str) else ""


class ModelCards:
    """The cards of the files that are served. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The card of each path, with the time and the size that its file had then.
        self._known: dict[Path, tuple[tuple[int, int], ModelCard]] = {}

    def of(self, settings: Settings) -> ModelCard | None:
        """Return the card of the model that these settings serve; None where its file cannot be read."""
        try:
            path = served_model_path(settings).absolute()
            found = path.stat()
            state = found.st_mtime_ns, found.st_size
            with self._lock:
                known = self._known.get(path)
            if known is not None and known[0] == state:
                return known[1]
            card = _read_card(settings, path, state)
        except (StartError, GgufError, OSError):
            return None
        with self._lock:
            self._known[path] = state, card
        return card


def _read_card(settings: Settings, path: Path, state: tuple[int, int]) -> ModelCard:
    info = read_model(settings, "MODEL_PATH")
    identity = f"{path.name} {info.file_bytes} {state[0]}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return ModelCard(info, read_header(path).metadata, state[0] / 1e9, digest)
