"""The files beside a model that llama.cpp's variables name: a projector, adapters, a draft model.

A *projector* lets a model see images or hear sounds, an *adapter* (LoRA) changes what it says, and a *draft model*
guesses what it will say next, so that it says it sooner. The names of the variables are llama.cpp's (common/arg.cpp),
and for the adapters, which have none there, those of its flags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mistral_api.errors import StartError
from mistral_api.model_files.gguf import GgufError, GgufHeader, read_header

_LIST, _SCALED_LIST = "LORA", "LORA_SCALED"
# The variables without their prefix, and what is in the files that they name.
_KINDS = {
    "MMPROJ": "a projector",
    _LIST: "an adapter",
    _SCALED_LIST: "an adapter",
    "SPEC_DRAFT_MODEL": "a model",
    "MODEL_DRAFT": "a model",
}


@dataclass(frozen=True, slots=True)
class CompanionFile:
    """A file beside the model. ``variable``: what names it; ``kind``: what it must be, as one says it."""

    variable: str
    kind: str
    path: Path

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter."""
        return self.kind == _KINDS[_LIST]

    def require_usable(self) -> int:
        """Return its size in bytes. Raises StartError for a file that is missing, damaged or of another kind."""
        try:
            found = _kind(read_header(self.path))
            size = self.path.stat().st_size
        except OSError as error:
            raise StartError(f"{self.variable}: '{self.path}' cannot be read: {error.strerror}.") from error
        except GgufError as error:
            raise StartError(f"{self.variable}: '{self.path}' {error}.") from error
        if found != self.kind:
            raise StartError(f"{self.variable}: '{self.path}' is {found}, and not {self.kind}.")
        return size


def _kind(header: GgufHeader) -> str:
    """Return what a file is: projectors are of one architecture, adapters name their type (gguf-py, constants.py)."""
    if header.architecture == "clip":
        return "a projector"
    return "an adapter" if header.metadata.get("general.type") == "adapter" else "a model"


def companion_files(variables: Mapping[str, str], prefix: str) -> list[CompanionFile]:
    """Return the files that ``variables`` name, of which those of one model server begin with ``prefix``."""
    return [
        CompanionFile(prefix + name, kind, Path(path))
        for name, kind in _KINDS.items()
        for path in _paths(name, variables.get(prefix + name, ""))
    ]


def _paths(name: str, text: str) -> Iterator[str]:
    """Yield the paths in a variable's text; only adapters come as a list, and some with their scale behind a colon."""
    for part in text.split(",") if name in (_LIST, _SCALED_LIST) else [text]:
        path = part.rpartition(":")[0] if name == _SCALED_LIST else part
        if path.strip():
            yield path.strip()
