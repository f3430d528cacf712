"""Values of the engine's parameters, and the readers that make them of the texts of flags and variables.

A reader raises ValueError with what it takes, ``a whole number from 0``; the parser puts the flag's name before it.
The limits are those of llama.cpp (common/arg.cpp), and those of the native types beyond which xllamacpp, or an
assertion of llama.cpp, would end the process.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from mistral_api.embedded.engine.enumerations import PRIORITY, SPECULATION, Enumeration, Member

# The largest number of a C int and of an unsigned one, 32 bits each.
LARGEST_INT: Final = 2**31 - 1
LARGEST_UNSIGNED: Final = 2**32 - 1

# llama.cpp's words for yes and no (common/arg.cpp, is_truthy and is_falsey).
YES, NO = ("1", "true", "on", "enabled"), ("0", "false", "off", "disabled")
# ggml's GGML_MAX_N_THREADS: the most threads, and the most processors in a mask.
MOST_THREADS: Final = 512
# llama.cpp's names of samplers and what it takes for them besides (common/sampling.cpp).
_SAMPLERS: Final = {
    **{name: name for name in ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc")},
    **{name: name for name in ("temperature", "infill", "adaptive_p")},
    **dict.fromkeys(("typical", "typical_p", "typ"), "typ_p"),
    "temp": "temperature",
    "nucleus": "top_p",
}


class LoraAdapter(NamedTuple):
    """A file of a LoRA adapter, and how strongly it acts."""

    path: str
    scale: float


FlagValue: TypeAlias = (
    "bool | int | float | str | Member | list[str] | list[float] | list[Member] | list[LoraAdapter] "
    "| set[str] | frozenset[int] | dict[str, str]"
)


class Attributes(dict[str, FlagValue]):
    """What a flag sets that stands for several parameters: values by attribute of xllamacpp's CommonParams."""


Reader: TypeAlias = "Callable[[str], FlagValue | Attributes]"


def read_text(text: str) -> str:
    """Return the text as it is."""
    return text


def read_switch(text: str) -> bool:
    """Return whether one of llama.cpp's words means yes."""
    if text.lower() not in YES + NO:
        raise ValueError("on or off")
    return text.lower() in YES


def read_opposite(text: str) -> bool:
    """Return the opposite of a switch, for parameters that say what is not done."""
    return not read_switch(text)


def whole(least: int = -LARGEST_INT, most: int = LARGEST_INT) -> Callable[[str], int]:
    """Return a reader of whole numbers."""

    def read(text: str) -> int:
        number = int(text) if _looks_whole(text) else None
        if number is None or not least <= number <= most:
            raise ValueError(_range_text("a whole number", least, most, LARGEST_INT))
        return number

    return read


def number(least: float = -math.inf, most: float = math.inf) -> Callable[[str], float]:
    """Return a reader of numbers."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            raise ValueError(_range_text("a number", least, most, math.inf))
        return value

    return read


def _looks_whole(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()


def _range_text(kind: str, least: float, most: float, largest: float) -> str:
    lower = "" if least <= -largest else f" from {least:g}"
    return kind + lower + ("" if most >= largest else f" to {most:g}")


def read_threads(text: str) -> int:
    """Return a number of threads; -1 lets llama.cpp choose, and so does 0."""
    return whole(-1, MOST_THREADS)(text) or -1


def read_idle_seconds(text: str) -> int:
    """Return a number of seconds, or -1 for never."""
    if text.strip() == "0":
        raise ValueError("a whole number from 1, or -1")
    return whole(-1)(text)


def read_gpu_layers(text: str) -> int:
    """Return the number of layers; ``auto`` and ``all`` are -1 and -2 in llama.cpp's parameters (common/common.h)."""
    words = {"auto": -1, "all": -2}
    if text not in words and not _looks_whole(text):
        raise ValueError("a number of layers, auto or all")
    return words[text] if text in words else whole()(text)


def read_list(text: str) -> list[str]:
    """Return the values in a list separated by commas, in order."""
    return [value.strip() for value in text.split(",") if value.strip()]


def read_names(text: str) -> set[str]:
    """Return the names in a list separated by commas."""
    return set(read_list(text))


def read_one(text: str) -> list[str]:
    """Return a list of this text alone, which may hold commas."""
    return [text]


def numbers(least: float, separators: str = ",") -> Callable[[str], list[float]]:
    """Return a reader of a list of numbers, not below ``least``."""
    read_number = number(least)

    def read(text: str) -> list[float]:
        for separator in separators:
            text = text.replace(separator, ",")
        return [read_number(each) for each in read_list(text)]

    return read


def mebibytes(text: str) -> int:
    """Return a number of MiB in bytes."""
    return whole(0)(text) * 2**20


def read_margins(text: str) -> list[float]:
    """Return the bytes of each number of MiB in a list."""
    return [float(mebibytes(margin)) for margin in read_list(text)]


def word_of(enumeration: Enumeration) -> Callable[[str], Member]:
    """Return a reader of one word of an enumeration."""

    def read(text: str) -> Member:
        try:
            return enumeration[text]
        except KeyError:
            raise ValueError(_one_of(enumeration.words)) from None

    return read


def read_raised_priority(text: str) -> Member:
    """Return a priority that is not low, which llama.cpp has only for the threads of generation."""
    return PRIORITY[str(whole(0, 3)(text))]


def read_speculation(text: str) -> list[Member]:
    """Return the kinds of speculative decoding in a list."""
    return [word_of(SPECULATION)(word) for word in read_list(text)]


def _one_of(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def read_folder(text: str) -> str:
    """Return an existing folder with a separator at its end: llama.cpp appends file names to it (common/arg.cpp)."""
    if not os.path.isdir(text):
        raise ValueError("a folder that exists")
    return os.path.join(text, "")


def read_path(text: str) -> str:
    """Return the path of an existing file."""
    if not os.path.isfile(text):
        raise ValueError("a file that exists")
    return text


def read_gguf(path: str) -> str:
    """Return the path of a GGUF file: an adapter, a projector, a small model."""
    try:
        with open(path, "rb") as file:
            is_gguf = file.read(4) == b"GGUF"
    except OSError:
        raise ValueError("a file that exists and can be read") from None
    if not is_gguf:
        raise ValueError("a GGUF file, and that file is none")
    return path


def read_file(path: str) -> str:
    """Return the text of a UTF-8 file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ValueError("a text file that can be read") from None


def read_lines(path: str) -> list[str]:
    """Return the lines of a file but empty ones and comments: keys, one a line."""
    lines = [line.strip() for line in read_file(path).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def read_adapters(text: str) -> list[LoraAdapter]:
    """Return the adapters in a list of files, each at full strength."""
    return [LoraAdapter(read_gguf(path), 1.0) for path in read_list(text)]


def read_scaled_adapters(text: str) -> list[LoraAdapter]:
    """Return the adapters in a list of ``FILE:SCALE``. The file's own name may hold colons."""
    adapters = []
    for each in read_list(text):
        path, colon, scale = each.rpartition(":")
        if not colon:
            raise ValueError("a list of FILE:SCALE")
        adapters.append(LoraAdapter(read_gguf(path), number()(scale)))
    return adapters


def read_samplers(text: str) -> str:
    """Return llama.cpp's names of samplers, separated by semicolons."""
    names = [name.strip().lower().replace("-", "_") for name in text.split(";") if name.strip()]
    if any(name not in _SAMPLERS for name in names):
        raise ValueError(f"a list, separated by semicolons, of {', '.join(sorted(set(_SAMPLERS.values())))}")
    return ";".join(_SAMPLERS[name] for name in names)


def read_seed(text: str) -> int:
    """Return a seed; -1, a new one for each answer, is the largest number."""
    return whole(-1, LARGEST_UNSIGNED)(text) % (LARGEST_UNSIGNED + 1)


def read_mask(text: str) -> frozenset[int]:
    """Return the processors whose bits are set in a hexadecimal number."""
    try:
        bits = int(text, 16)
    except ValueError:
        bits = -1
    if not 0 < bits < 2**MOST_THREADS:
        raise ValueError(f"a hexadecimal mask of at most {MOST_THREADS} processors, such as 0xff")
    return frozenset(index for index in range(bits.bit_length()) if bits >> index & 1)


def read_processors(text: str) -> frozenset[int]:
    """Return the processors of a range, ``0-3``; either end may be left out."""
    first, dash, last = text.partition("-")
    ends = [first or "0", last or str(MOST_THREADS - 1)]
    if not dash or not all(end.isdecimal() and int(end) < MOST_THREADS for end in ends):
        raise ValueError("a range of processors, such as 0-3")
    return frozenset(range(int(ends[0]), int(ends[1]) + 1))


def read_template_values(text: str) -> dict[str, str]:
    """Return the values of a JSON object, each as JSON: what the model's template gets by name."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, Mapping):
        raise ValueError("a JSON object")
    return {name: json.dumps(value, ensure_ascii=False, separators=(",", ":")) for name, value in values.items()}
