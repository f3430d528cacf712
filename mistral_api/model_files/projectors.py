"""The projector of a model on the hub: the file by which llama.cpp lets it see images, or hear sounds.

A repository of GGUF files has it beside the model, and ``mmproj`` in its name says what it is: that is how llama.cpp
itself finds one (common/download.cpp). Many have it in several types of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mistral_api.model_files.known_models import ModelSource

_MARK = "mmproj"
# Every card computes with F16. The last word of a name is its type, before or behind the mark.
_TYPES_BY_PREFERENCE = ("F16", "BF16", "Q8_0", "F32")


def is_projector(file: str) -> bool:
    """Return whether a file on the hub is a projector, by its name."""
    return _MARK in _name(file)


def choose_projector(model: ModelSource, files: Iterable[str]) -> ModelSource | None:
    """Return the projector for a model among the files of its repository, the one in its own folder first.

    Many repositories call it just ``mmproj-F16.gguf``. So it is saved under a name that its repository is a part of.
    """
    found = [file for file in files if is_projector(file)]
    if is_projector(model.file) or not found:
        return None
    chosen = min(found, key=lambda file: (_folder(file) != _folder(model.file), _type_rank(file), file))
    saved = f"{_MARK}-{model.repo.replace('/', '_').removesuffix('-GGUF')}-{_type(chosen)}.gguf"
    return replace(model, file=chosen, saved_name=saved)


def _name(file: str) -> str:
    return file.rpartition("/")[2].lower()


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def _type(file: str) -> str:
    words = set(_name(file).removesuffix(".gguf").replace(".", "-").upper().split("-"))
    return next((each for each in _TYPES_BY_PREFERENCE if each in words), "other")


def _type_rank(file: str) -> int:
    kind = _type(file)
    return _TYPES_BY_PREFERENCE.index(kind) if kind in _TYPES_BY_PREFERENCE else len(_TYPES_BY_PREFERENCE)
