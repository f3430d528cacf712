"""GGUF: header, split names, pooling.

The header of a GGUF file: what a model says of itself, and whether all of its bytes are there.

The layout is the one at the top of llama.cpp's ``ggml/include/gguf.h``; type numbers and block sizes are those of
``ggml/include/ggml.h``. Read here and not by the package ``gguf``, which brings numpy: the supervisor stays small.

The names of a model that is split into several GGUF files: NAME-00001-of-00003.gguf and so on.

llama.cpp's ``gguf-split`` gives them, and by them llama.cpp finds the other parts beside the first.

How a model makes one vector, or one score, of the tokens of a text: what its file says, and what we ask for.

``{architecture}.pooling_type`` is described in GGUF's specification (ggml, docs/gguf.md) and numbered as llama.cpp's
``enum llama_pooling_type`` (include/llama.h). ``cls.output`` is the classification head of a reranker
(``LLM_TENSOR_CLS_OUT``, src/llama-arch.cpp); not every converter says ``rank`` beside it.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MOST_DIMENSIONS = 4

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
# Tensor type -> (values in a block, bytes of a block). The size of a type that is not here is not checked.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
}  # fmt: skip


class GgufError(ValueError):
    """The file cannot be a whole model; the message is half a sentence that goes after its name."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``metadata`` has numbers and strings only: of arrays, a tokenizer's above all, nothing is kept.

    ``parameters``: weights in this file. ``needed_bytes``: how large the file must be to hold all its tensors,
    whose names are ``tensors``.
    """

    version: int
    metadata: Mapping[str, Any]
    parameters: int
    needed_bytes: int
    tensors: frozenset[str]


def read_header(path: Path) -> GgufHeader:
    """Read a file's header. Raises OSError where it cannot be opened, GgufError for what is no whole model."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        _require_gguf(file.read(len(MAGIC) + 4), size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Reader(data).header()
    if header.needed_bytes > size:
        raise truncated(size, header.needed_bytes)
    return header


def truncated(size: int, needed: int | None = None) -> GgufError:
    """The error of a file whose end is missing."""
    whole = f" of {needed}" if needed else ""
    return GgufError(f"is truncated: only {size}{whole} bytes are there; download or copy it again")


def _unknown_type(kind: int) -> GgufError:
    return GgufError(f"has a value of the unknown type {kind} in its header: it is damaged, download it again")


def _require_gguf(start: bytes, size: int) -> None:
    if size == 0:
        raise GgufError("is empty; download or copy it again")
    if start[: len(MAGIC)] != MAGIC:
        raise GgufError("is not a GGUF file; llama.cpp serves no other kind")
    if len(start) < len(MAGIC) + 4:
        raise truncated(size)
    (version,) = struct.unpack("<I", start[len(MAGIC) :])
    if version in VERSIONS:
        return
    if int.from_bytes(start[len(MAGIC) :], "big") in VERSIONS:
        raise GgufError("was made for a big-endian machine; take the ordinary file")
    raise GgufError(f"is of GGUF version {version}, which llama.cpp does not read; convert it anew")


class _Reader:
    """Walks through the header; whatever lies beyond the end means that the file is truncated."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(MAGIC)

    def header(self) -> GgufHeader:
        version, tensors, pairs = self._scalar("<I"), self._scalar("<q"), self._scalar("<q")
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            name, value = self._string(), self._value(self._scalar("<I"))
            if value is not None:
                metadata[name] = value
        parameters, end, names = 0, 0, set()
        for _ in range(tensors):
            name, values, last = self._tensor()
            names.add(name)
            parameters, end = parameters + values, max(end, last)
        alignment = metadata.get("general.alignment")
        if not isinstance(alignment, int) or alignment <= 0:
            alignment = DEFAULT_ALIGNMENT
        start = -(-self._at // alignment) * alignment
        return GgufHeader(version, metadata, parameters, start + end, frozenset(names))

    def _tensor(self) -> tuple[str, int, int]:
        """Its name, how many values it has, and where in the data it ends."""
        name = self._string()
        values, dimensions = 1, self._scalar("<I")
        if dimensions > MOST_DIMENSIONS:
            raise GgufError(f"has a tensor of {dimensions} dimensions in its header: it is damaged, download it again")
        for _ in range(dimensions):
            values *= self._scalar("<q")
        kind, offset = self._scalar("<I"), self._scalar("<Q")
        block, size = _BLOCKS.get(kind, (1, 0))
        return name, values, offset + values // block * size

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._skip_array()
        if kind not in _SCALARS:
            raise _unknown_type(kind)
        return self._scalar(_SCALARS[kind])

    def _skip_array(self) -> None:
        kind, count = self._scalar("<I"), self._scalar("<Q")
        if kind in _SCALARS:
            self._take(struct.calcsize(_SCALARS[kind]) * count)
            return
        if kind != _STRING:  # llama.cpp knows no arrays of arrays either
            raise _unknown_type(kind)
        for _ in range(count):
            self._take(self._scalar("<Q"))

    def _string(self) -> str:
        start = self._take(self._scalar("<Q"))
        return self._data[start : self._at].decode("utf-8", errors="replace")

    def _scalar(self, layout: str) -> Any:
        start = self._take(struct.calcsize(layout))
        return struct.unpack_from(layout, self._data, start)[0]

    def _take(self, count: int) -> int:
        """Step over so many bytes; answers where they begin."""
        start = self._at
        if count > len(self._data) - start:
            raise truncated(len(self._data))
        self._at = start + count
        return start


_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SplitName:
    """What a part's name says: the model's own name, and how many parts there are."""

    stem: str
    count: int

    def names(self) -> list[str]:
        """Every part, the one to give llama.cpp first."""
        return [f"{self.stem}-{number:05}-of-{self.count:05}.gguf" for number in range(1, self.count + 1)]


def parse_split_name(name: str) -> SplitName | None:
    """Read the name of a part, folders before it included; None for that of a model in one file."""
    found = _NAME.fullmatch(name)
    return SplitName(found["stem"], int(found["count"])) if found else None


NONE, RANK = 0, 4
_HEAD = "cls.output.weight"
_YES = ("1", "true", "on", "enabled")


@dataclass(frozen=True, slots=True)
class Pooling:
    """``flags``: what llama-server is told; ``ranks``: whether it gives a score, None where nobody knows; ``context``:
    the model's own."""

    flags: tuple[str, ...]
    is_reranker: bool | None
    context_size: int | None = None


def ranking_requested(environment: Mapping[str, str]) -> bool:
    """Whether llama.cpp's own variables make a reranker of whatever is served."""
    asked = environment.get("LLAMA_ARG_RERANKING", "").lower() in _YES
    return asked or environment.get("LLAMA_ARG_POOLING") == "rank"


def read_pooling(path: Path, environment: Mapping[str, str]) -> Pooling:
    """How the model in this file pools: llama.cpp's variables first, then the file, and the mean where both are silent.

    A file that cannot be read is left to ``require_model``, which says why.
    """
    try:
        header = read_header(path)
    except (OSError, GgufError):
        return Pooling((), ranking_requested(environment) or None)
    architecture = header.metadata.get("general.architecture")
    context = header.metadata.get(f"{architecture}.context_length")
    window = context if isinstance(context, int) else None
    if "LLAMA_ARG_POOLING" in environment or ranking_requested(environment):
        return Pooling((), ranking_requested(environment), window)
    return _of_header(header, header.metadata.get(f"{architecture}.pooling_type"), window)


def _of_header(header: GgufHeader, kind: object, window: int | None) -> Pooling:
    if kind == RANK or _HEAD in header.tensors:
        return Pooling(("--pooling", "rank"), True, window)
    # A chat model names none, and a vector for each token is no embedding of a text.
    return Pooling(("--pooling", "mean") if kind in (None, NONE) else (), False, window)
