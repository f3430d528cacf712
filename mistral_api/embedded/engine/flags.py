"""The flags and variables of llama-server that the bundled engine takes, each declared once.

Names and meanings are llama.cpp's (tools/server/README.md). A flag wins over its variable. A flag that is not declared
here is refused by name; a variable that is not declared here is reported and has no effect.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

_YES, _NO = ("1", "true", "on", "enabled"), ("0", "false", "off", "disabled")
_POOLINGS = ("none", "mean", "cls", "last", "rank")
_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

FlagValue: TypeAlias = bool | int | str | list[str] | set[str]


class BadFlag(ValueError):
    """A flag or its value is not known; the message names the flag."""


def read_gpu_layers(text: str) -> int:
    """Return the number of layers; ``auto`` and ``all`` are -1 and -2 in llama.cpp's parameters (common/common.h)."""
    return {"auto": -1, "all": -2}.get(text) or int(text)


def read_names(text: str) -> set[str]:
    """Return the names in a list separated by commas."""
    return {name.strip() for name in text.split(",") if name.strip()}


def read_list(text: str) -> list[str]:
    """Return the values in a list separated by commas, in order."""
    return [value.strip() for value in text.split(",") if value.strip()]


def read_switch(text: str) -> bool:
    """Return whether one of llama.cpp's words means yes."""
    if text.lower() not in _YES + _NO:
        raise ValueError(text)
    return text.lower() in _YES


def read_folder(text: str) -> str:
    """Return an existing folder with a separator at its end: llama.cpp appends file names to it (common/arg.cpp)."""
    if not os.path.isdir(text):
        raise ValueError(text)
    return os.path.join(text, "")


def read_file(path: str) -> str:
    """Return the text of a UTF-8 file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(path) from error


def reader_of_choice(*words: str) -> Callable[[str], str]:
    """Return a reader of one of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return read


@dataclass(frozen=True, slots=True)
class Flag:
    """One parameter: its flags, its variable, the reader of its text, and the attribute that it sets.

    ``attribute`` is a path in xllamacpp's CommonParams. A flag read by ``read_switch`` needs no value on the command
    line; the flags in ``off`` switch it off.
    """

    flags: tuple[str, ...]
    variable: str | None
    read: Callable[[str], FlagValue]
    attribute: str
    off: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The longest flag."""
        return self.flags[-1]


# Former names of LLAMA_ARG_UI, which the supervisor sets besides for older llama-servers.
_FORMER_NAMES = {"LLAMA_ARG_WEBUI", "LLAMA_ARG_NO_WEBUI"}

FLAGS = (
    Flag(("-m", "--model"), "LLAMA_ARG_MODEL", str, "model.path"),
    Flag(("--host",), "LLAMA_ARG_HOST", read_list, "hostnames"),
    Flag(("--port",), "LLAMA_ARG_PORT", int, "port"),
    Flag(("-a", "--alias"), "LLAMA_ARG_ALIAS", read_names, "model_alias"),
    Flag(("-ngl", "--gpu-layers", "--n-gpu-layers"), "LLAMA_ARG_N_GPU_LAYERS", read_gpu_layers, "n_gpu_layers"),
    Flag(("-c", "--ctx-size"), "LLAMA_ARG_CTX_SIZE", int, "n_ctx"),
    Flag(("-b", "--batch-size"), "LLAMA_ARG_BATCH", int, "n_batch"),
    Flag(("-ub", "--ubatch-size"), "LLAMA_ARG_UBATCH", int, "n_ubatch"),
    Flag(("-t", "--threads"), "LLAMA_ARG_THREADS", int, "cpuparams.n_threads"),
    Flag(("-tb", "--threads-batch"), None, int, "cpuparams_batch.n_threads"),
    Flag(("--threads-http",), "LLAMA_ARG_THREADS_HTTP", int, "n_threads_http"),
    Flag(("-np", "--parallel"), "LLAMA_ARG_N_PARALLEL", int, "n_parallel"),
    Flag(("-n", "--predict", "--n-predict"), "LLAMA_ARG_N_PREDICT", int, "n_predict"),
    Flag(("--metrics",), "LLAMA_ARG_ENDPOINT_METRICS", read_switch, "endpoint_metrics"),
    Flag(("--slots",), "LLAMA_ARG_ENDPOINT_SLOTS", read_switch, "endpoint_slots", ("--no-slots",)),
    Flag(("--props",), "LLAMA_ARG_ENDPOINT_PROPS", read_switch, "endpoint_props"),
    Flag(("--slot-save-path",), None, read_folder, "slot_save_path"),
    Flag(("--api-key",), "LLAMA_API_KEY", read_list, "api_keys"),
    Flag(("-to", "--timeout"), "LLAMA_ARG_TIMEOUT", int, "timeout_read"),
    Flag(("--cache-prompt",), "LLAMA_ARG_CACHE_PROMPT", read_switch, "cache_prompt", ("--no-cache-prompt",)),
    Flag(("-cram", "--cache-ram"), "LLAMA_ARG_CACHE_RAM", int, "cache_ram_mib"),
    Flag(("--cache-reuse",), "LLAMA_ARG_CACHE_REUSE", int, "n_cache_reuse"),
    Flag(("--context-shift",), "LLAMA_ARG_CONTEXT_SHIFT", read_switch, "ctx_shift", ("--no-context-shift",)),
    Flag(("-ctk", "--cache-type-k"), "LLAMA_ARG_CACHE_TYPE_K", reader_of_choice(*_CACHE_TYPES), "cache_type_k"),
    Flag(("-ctv", "--cache-type-v"), "LLAMA_ARG_CACHE_TYPE_V", reader_of_choice(*_CACHE_TYPES), "cache_type_v"),
    Flag(("-fa", "--flash-attn"), "LLAMA_ARG_FLASH_ATTN", reader_of_choice("on", "off", "auto"), "flash_attn_type"),
    Flag(("--jinja",), "LLAMA_ARG_JINJA", read_switch, "use_jinja", ("--no-jinja",)),
    Flag(("--chat-template",), "LLAMA_ARG_CHAT_TEMPLATE", str, "chat_template"),
    Flag(("--chat-template-file",), "LLAMA_ARG_CHAT_TEMPLATE_FILE", read_file, "chat_template"),
    Flag(("--embedding", "--embeddings"), "LLAMA_ARG_EMBEDDINGS", read_switch, "embedding"),
    Flag(("--pooling",), "LLAMA_ARG_POOLING", reader_of_choice(*_POOLINGS), "pooling_type"),
    Flag(("--reranking", "--rerank"), "LLAMA_ARG_RERANKING", read_switch, "reranking"),
    Flag(("--warmup",), "LLAMA_ARG_WARMUP", read_switch, "warmup", ("--no-warmup",)),
    Flag(("--ui", "--webui"), "LLAMA_ARG_UI", read_switch, "ui", ("--no-ui", "--no-webui")),
    Flag(("--cors-origins",), "LLAMA_ARG_CORS_ORIGINS", str, "cors_origins"),
    Flag(("--cors-methods",), "LLAMA_ARG_CORS_METHODS", str, "cors_methods"),
    Flag(("--cors-headers",), "LLAMA_ARG_CORS_HEADERS", str, "cors_headers"),
    Flag(
        ("--cors-credentials",),
        "LLAMA_ARG_CORS_CREDENTIALS",
        read_switch,
        "cors_credentials",
        ("--no-cors-credentials",),
    ),
    Flag(("-lv", "--verbosity", "--log-verbosity"), "LLAMA_ARG_LOG_VERBOSITY", int, "verbosity"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadFlag(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="engine", allow_abbrev=False, description=__doc__)
    parser.add_argument("--version", action="store_true", help="print the engine's version and exit")
    parser.add_argument(
        "--list-devices", action="store_true", help="print what it computes on beside the CPU, and exit"
    )
    for flag in FLAGS:
        target = parser.add_mutually_exclusive_group()
        if flag.read is read_switch:
            target.add_argument(*flag.flags, dest=flag.name, action="store_const", const="on")
        else:
            target.add_argument(*flag.flags, dest=flag.name)
        if flag.off:
            target.add_argument(*flag.off, dest=flag.name, action="store_const", const="off")
    return parser


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The engine's options, from the command line and the environment: values by attribute."""

    version: bool
    list_devices: bool
    values: Mapping[str, FlagValue]
    unknown_variables: Sequence[str]


def parse_options(arguments: Sequence[str], environment: Mapping[str, str]) -> EngineOptions:
    """Read the flags, then the variables where there is no flag. Raises BadFlag."""
    texts = vars(_parser().parse_args(list(arguments)))
    by_flag = {flag.attribute for flag in FLAGS if texts[flag.name] is not None}
    values = {}
    for flag in FLAGS:
        text, source = texts[flag.name], flag.name
        if flag.variable and flag.attribute not in by_flag:
            text, source = environment.get(flag.variable), flag.variable
        if text is not None:
            values[flag.attribute] = _read(flag, text, source)
    return EngineOptions(bool(texts["version"]), bool(texts["list_devices"]), values, _unknown_variables(environment))


def _read(flag: Flag, text: str, source: str) -> FlagValue:
    try:
        return flag.read(text)
    except ValueError as error:
        raise BadFlag(f"argument {source}: '{text}' is not allowed") from error


def _unknown_variables(environment: Iterable[str]) -> list[str]:
    known = {flag.variable for flag in FLAGS} | _FORMER_NAMES
    return sorted(name for name in environment if name.startswith("LLAMA_ARG_") and name not in known)
