"""Which model is served, under which names, and what its file says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistral_api.embedded.demo_model import DemoModelMissing, demo_model_path
from mistral_api.errors import StartError
from mistral_api.model_files.gguf import GgufError, GgufHeader, parse_split_name, read_header
from mistral_api.settings import Settings

# Names of llama.cpp's ``enum llama_ftype`` (include/llama.h), as quantisers put them into file names.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model whose files are whole. ``layers`` are its blocks, ``context`` the tokens it was made for.

    ``files``: every shard, the first one first; ``file_bytes``: all of them together.
    """

    path: Path
    files: tuple[Path, ...]
    file_bytes: int
    architecture: str | None
    parameters: int
    quantization: str | None
    context: int | None
    layers: int | None


def served_model_path(settings: Settings) -> Path:
    """MODEL_PATH, or the demo model. Raises DemoModelMissing where there is neither."""
    return settings.model_path or demo_model_path()


def served_model_names(settings: Settings) -> list[str]:
    """The names clients may use, the model's id first: MODEL_ALIAS, or the file's name without ending."""
    if settings.model_alias:
        return settings.model_alias.split(",")
    try:
        return [served_model_path(settings).stem]
    except DemoModelMissing:
        return []


def read_model(settings: Settings, path_setting: str) -> ModelInfo:
    """Read what each file of the model says, before anything is started.

    Raises StartError, whose sentence begins with ``path_setting``.
    """
    try:
        path = served_model_path(settings).absolute()
    except DemoModelMissing as error:
        raise StartError(str(error)) from error
    try:
        first = _header(path)
        files = _shards(path, first)
        headers = [first, *(_header(file) for file in files[1:])]
    except _Unusable as error:
        raise StartError(f"{path_setting}: {error}") from error
    return _model(path, files, headers)


class _Unusable(ValueError):
    """A file of the model cannot be used; the message is a sentence that lacks the name of the setting."""


def _header(path: Path) -> GgufHeader:
    try:
        return read_header(path)
    except OSError as error:
        raise _Unusable(f"'{path}' cannot be read: {error.strerror}.") from error
    except GgufError as error:
        raise _Unusable(f"'{path}' {error}.") from error


def _shards(path: Path, first: GgufHeader) -> tuple[Path, ...]:
    """All files of a model that is split (``gguf-split``); they are named NAME-00001-of-00003.gguf."""
    count = _number(first.metadata.get("split.count")) or 1
    if count <= 1:
        return (path,)
    named = parse_split_name(path.name)
    if named is None or named.count != count:
        raise _Unusable(
            f"'{path}' is one of {count} parts and must be named NAME-00001-of-{count:05}.gguf, as it came."
        )
    files = tuple(path.with_name(name) for name in named.names())
    if path != files[0]:
        raise _Unusable(f"'{path}' is not the first part of the model; give '{files[0]}'.")
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise _Unusable(f"'{path}' is one of {count} parts; missing beside it: {', '.join(missing)}.")
    return files


def _model(path: Path, files: tuple[Path, ...], headers: list[GgufHeader]) -> ModelInfo:
    known = headers[0].metadata
    architecture = known.get("general.architecture")
    return ModelInfo(
        path=path,
        files=files,
        file_bytes=sum(file.stat().st_size for file in files),
        architecture=architecture,
        parameters=sum(header.parameters for header in headers),
        quantization=_FILE_TYPES.get(known.get("general.file_type", -1)),
        context=_number(known.get(f"{architecture}.context_length")),
        layers=_number(known.get(f"{architecture}.block_count")),
    )


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
