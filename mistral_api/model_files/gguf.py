"""GGUF files: their header, the names of a split model's parts, and how a model pools its tokens.

The header says what a model is, and how large the whole file must be. Its layout is described at the top of
llama.cpp's ``ggml/include/gguf.h``; type numbers and block sizes are those of ``ggml/include/ggml.h``. It is read here
and not by the package ``gguf``, which brings numpy, so that the supervisor stays small.

A file may come from anybody, and every count and length in it may be a lie. None is believed further than the file
reaches, nor beyond what headers of real models have; what is kept of a header is small, however large it is. What
llama.cpp refuses (names that occur twice, negative sizes, an odd alignment: ``ggml/src/gguf.cpp``) is refused here
with a sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
# More than any model has: pairs, tensors, strings in all arrays, bytes of a tensor's name and of the whole header. Of a
# name llama.cpp takes 63 bytes (``GGML_MAX_NAME``), of a key the specification allows 65535.
MOST_PAIRS, MOST_TENSORS, MOST_STRINGS = 16_384, 200_000, 4_000_000
MOST_NAME_BYTES, MOST_KEY_BYTES, MOST_HEADER_BYTES = 255, 65_535, 512 << 20
# Longer strings, such as chat templates, are left out of the metadata.
KEPT_STRING_BYTES = 1024
_MOST_ALIGNMENT = 1 << 16
_INT64_MAX = 2**63 - 1

MetadataValue: TypeAlias = str | int | float | bool

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

_SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)

# The names of a tokenizer's metadata begin so (gguf-py, constants.py).
_TOKENIZER, _TOKENS = "tokenizer.", "tokenizer.ggml.tokens"
# Numbers of llama.cpp's ``enum llama_pooling_type`` (include/llama.h).
_POOLING_NONE, _POOLING_RANK = 0, 4
# The classification head of a reranker (``LLM_TENSOR_CLS_OUT``, src/llama-arch.cpp).
_RANKING_TENSOR = "cls.output.weight"
# The values that llama.cpp takes for "on".
# The templates for chats that llama.cpp looks for in a file (common/chat.cpp, ``common_chat_templates_init``).
_CHAT_TEMPLATES = ("tokenizer.chat_template", "tokenizer.chat_template.tool_use")
_TRUE_VALUES = ("1", "true", "on", "enabled")


class GgufError(ValueError):
    """The file cannot be a whole model. The message is half a sentence that follows the file's name."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The header of one file.

    ``metadata``: numbers and short strings only. Arrays, above all a tokenizer's, are left out.
    ``parameters``: the number of weights in this file. ``tensors``: the names of its tensors.
    ``needed_bytes``: how large the file must be to hold all its tensors. ``longest_token``: the bytes of the longest
    token of its tokenizer; 0 where it has none. ``has_chat_template``: whether it has a form of its own for chats,
    which base models have not.
    """

    version: int
    metadata: Mapping[str, MetadataValue]
    parameters: int
    needed_bytes: int
    tensors: frozenset[str]
    longest_token: int = 0
    has_chat_template: bool = False

    @property
    def architecture(self) -> str | None:
        """The name of the model's architecture, such as ``llama``."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """Return a metadata value, or None where it is missing or no integer."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def architecture_number(self, key: str) -> int | None:
        """Return the metadata value ``{architecture}.{key}``, or None where it is missing or no integer."""
        return self.number(f"{self.architecture}.{key}")


def read_header(path: Path) -> GgufHeader:
    """Read a file's header. Raises OSError where it cannot be opened, GgufError where it is no whole model."""
    with _open_header(path) as reader:
        return reader.read()


@contextlib.contextmanager
def _open_header(path: Path) -> Iterator[_HeaderReader]:
    """Open a GGUF file at its header. Raises OSError where it cannot be opened, GgufError where it is no such file."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        _require_gguf(file.read(len(MAGIC) + 4), size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield _HeaderReader(data)


def _require_gguf(start: bytes, size: int) -> None:
    """Raise GgufError unless the first bytes are those of a GGUF file that llama.cpp reads."""
    if size == 0:
        raise GgufError("is empty; download or copy it again")
    if start[: len(MAGIC)] != MAGIC:
        raise GgufError("is not a GGUF file; llama.cpp serves no other kind")
    if len(start) < len(MAGIC) + 4:
        raise _truncated(size)
    (version,) = struct.unpack("<I", start[len(MAGIC) :])
    if version in VERSIONS:
        return
    if int.from_bytes(start[len(MAGIC) :], "big") in VERSIONS:
        raise GgufError("was made for a big-endian machine; take the ordinary file")
    raise GgufError(f"is of GGUF version {version}, which llama.cpp does not read; convert it anew")


def _truncated(size: int, needed: int | None = None) -> GgufError:
    whole = f" of {needed}" if needed else ""
    return GgufError(f"is truncated: only {size}{whole} bytes are there; download or copy it again")


def _damaged(what: str) -> GgufError:
    """Return the error for a header that no converter writes; ``what`` it has."""
    return GgufError(f"has {what} in its header: it is damaged, download it again")


def _unknown_type(kind: int) -> GgufError:
    return _damaged(f"a value of the unknown type {kind}")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The tokenizer of a model as its file has it: metadata pairs, each encoded, and the size of the vocabulary."""

    pairs: tuple[bytes, ...]
    tokens: int


def read_tokenizer(path: Path) -> Tokenizer:
    """Read the tokenizer from a file's header. Raises OSError, and GgufError where there is none."""
    with _open_header(path) as reader:
        tokenizer = reader.read_tokenizer()
    if not tokenizer.tokens:
        raise GgufError("has no tokenizer")
    return tokenizer


class _HeaderReader:
    """Reads the header from the start to the end. A value beyond the end means that the file is truncated."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._position = len(MAGIC)
        self._strings = 0
        self._longest_token = 0
        self._has_chat_template = False

    def read(self) -> GgufHeader:
        """Read all of it. Raises GgufError, also where the file is too small for its tensors."""
        version, tensors, pairs = self._scalar("<I"), self._count(), self._count()
        if pairs > MOST_PAIRS or tensors > MOST_TENSORS:
            raise _damaged(f"{pairs} values and {tensors} tensors")
        metadata = self._metadata(pairs)
        parameters, end, names = 0, 0, set[str]()
        for _ in range(tensors):
            name, values, tensor_end = self._tensor()
            if name in names:
                raise _damaged("two tensors of one name")
            names.add(name)
            parameters, end = parameters + values, max(end, tensor_end)
        alignment = _alignment(metadata)
        start = -(-self._position // alignment) * alignment
        if start + end > len(self._data):
            raise _truncated(len(self._data), start + end)
        return GgufHeader(
            version,
            metadata,
            parameters,
            start + end,
            frozenset(names),
            self._longest_token,
            self._has_chat_template,
        )

    def read_tokenizer(self) -> Tokenizer:
        self._skip(4 + 8)
        pairs, tokens = [], 0
        for _ in range(self._count()):
            start = self._position
            name, kind = _text(self._bytes(MOST_KEY_BYTES, "a name")), self._scalar("<I")
            at = self._position
            self._value(name, kind)
            if name == _TOKENS and kind == _ARRAY:
                tokens = struct.unpack_from("<IQ", self._data, at)[1]
            if name.startswith(_TOKENIZER):
                pairs.append(self._data[start : self._position])
        return Tokenizer(tuple(pairs), tokens)

    def _metadata(self, pairs: int) -> dict[str, MetadataValue]:
        metadata: dict[str, MetadataValue] = {}
        known = set[bytes]()
        for _ in range(pairs):
            key = self._bytes(MOST_KEY_BYTES, "a name")
            digest = key if len(key) <= MOST_NAME_BYTES else hashlib.sha256(key).digest()
            if digest in known:
                raise _damaged("two values of one name")
            known.add(digest)
            name = _text(key[:MOST_NAME_BYTES])
            value = self._value(name, self._scalar("<I"))
            if value is not None and len(key) <= MOST_NAME_BYTES:
                metadata[name] = value
        return metadata

    def _tensor(self) -> tuple[str, int, int]:
        """Return a tensor's name, its number of values, and where it ends in the data after the header."""
        name = _text(self._bytes(MOST_NAME_BYTES, "a tensor's name"))
        values, dimensions = 1, self._scalar("<I")
        if dimensions > MAX_DIMENSIONS:
            raise _damaged(f"a tensor of {dimensions} dimensions")
        for _ in range(dimensions):
            values *= self._count()
            if values > _INT64_MAX:
                raise _damaged("a tensor of an impossible size")
        kind, offset = self._scalar("<I"), self._scalar("<Q")
        block, size = _BLOCKS.get(kind, (1, 0))
        return name, values, offset + values // block * size

    def _value(self, name: str, kind: int) -> MetadataValue | None:
        """Return a metadata value of this type, or None for an array and for a long string."""
        if kind == _STRING:
            start = self._skip(length := self._scalar("<Q"))
            self._has_chat_template |= name in _CHAT_TEMPLATES and length > 0
            return _text(self._data[start : start + length]) if length <= KEPT_STRING_BYTES else None
        if kind == _ARRAY:
            self._skip_array(name)
            return None
        if kind not in _SCALARS:
            raise _unknown_type(kind)
        scalar: int | float | bool = self._scalar(_SCALARS[kind])
        return scalar

    def _skip_array(self, name: str) -> None:
        kind, count = self._scalar("<I"), self._scalar("<Q")
        if kind in _SCALARS:
            self._skip(struct.calcsize(_SCALARS[kind]) * count)
            return
        if kind != _STRING:  # llama.cpp knows no arrays of arrays either
            raise _unknown_type(kind)
        self._strings += count
        if self._strings > MOST_STRINGS:
            raise _damaged(f"{self._strings} strings")
        longest = 0
        for _ in range(count):
            length = self._scalar("<Q")
            self._skip(length)
            longest = max(longest, length)
        if name == _TOKENS:
            self._longest_token = longest

    def _bytes(self, most: int, what: str) -> bytes:
        """Return a string of so many bytes at most, as it is; ``what`` it is, for the error."""
        start = self._skip(length := self._scalar("<Q"))
        if length > most:
            raise _damaged(f"{what} of {length} bytes")
        return self._data[start : start + length]

    def _scalar(self, layout: str) -> Any:
        start = self._skip(struct.calcsize(layout))
        return struct.unpack_from(layout, self._data, start)[0]

    def _count(self) -> int:
        """Return a number of things. A negative one would make a tensor seem smaller than what is read of it."""
        count: int = self._scalar("<q")
        if count < 0:
            raise GgufError(f"says in its header that it has {count} of something: it is damaged, download it again")
        return count

    def _skip(self, count: int) -> int:
        """Go forward by so many bytes, and return where they begin."""
        start = self._position
        if count > len(self._data) - start:
            raise _truncated(len(self._data))
        if count > MOST_HEADER_BYTES - start:
            raise _damaged(f"more than {MOST_HEADER_BYTES} bytes")
        self._position = start + count
        return start


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def _alignment(metadata: Mapping[str, MetadataValue]) -> int:
    """Return what the data of each tensor begins at a multiple of, in bytes."""
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if isinstance(alignment, bool) or not isinstance(alignment, int):
        raise _damaged("an alignment that is no number")
    if not 0 < alignment <= _MOST_ALIGNMENT or alignment & (alignment - 1):
        raise _damaged(f"an alignment of {alignment}")
    return alignment


@dataclass(frozen=True, slots=True)
class SplitName:
    """The name of one part of a model that is split into several files, such as ``NAME-00001-of-00003.gguf``.

    llama.cpp's ``gguf-split`` gives these names, and llama.cpp finds the other parts beside the first by them.
    ``stem`` is the model's own name, ``count`` the number of parts.
    """

    stem: str
    count: int

    def names(self) -> list[str]:
        """Return the names of all parts. The first one is for llama.cpp."""
        return [f"{self.stem}-{number:05}-of-{self.count:05}.gguf" for number in range(1, self.count + 1)]


def parse_split_name(name: str) -> SplitName | None:
    """Read the name of a part, with or without its folders; return None for a model in one file."""
    found = _SPLIT_NAME.fullmatch(name)
    return SplitName(found["stem"], int(found["count"])) if found else None


@dataclass(frozen=True, slots=True)
class Pooling:
    """How a model makes one vector, or one score, of the tokens of a text.

    ``flags``: the flags for llama-server. ``is_reranker``: whether the model returns a score, None where that is
    unknown. ``context_size``: the model's own context in tokens.
    """

    flags: tuple[str, ...]
    is_reranker: bool | None
    context_size: int | None = None


def ranking_requested(environment: Mapping[str, str]) -> bool:
    """Return whether llama.cpp's own variables make a reranker of whatever model is served."""
    requested = environment.get("LLAMA_ARG_RERANKING", "").lower() in _TRUE_VALUES
    return requested or environment.get("LLAMA_ARG_POOLING") == "rank"


def read_pooling(path: Path, environment: Mapping[str, str]) -> Pooling:
    """Return how the model in this file pools. llama.cpp's variables decide before the file does.

    Where neither says anything, it is the mean. A file that cannot be read is no error here: ``read_model`` says why.
    """
    try:
        header = read_header(path)
    except (OSError, GgufError):
        return Pooling((), ranking_requested(environment) or None)
    context_size = header.architecture_number("context_length")
    if "LLAMA_ARG_POOLING" in environment or ranking_requested(environment):
        return Pooling((), ranking_requested(environment), context_size)
    return _pooling_of_header(header, context_size)


def _pooling_of_header(header: GgufHeader, context_size: int | None) -> Pooling:
    """Return the pooling that the file asks for: its pooling type (GGUF's specification, ggml, docs/gguf.md)."""
    kind = header.metadata.get(f"{header.architecture}.pooling_type")
    # Not every converter writes ``rank`` into the file of a reranker.
    if kind == _POOLING_RANK or _RANKING_TENSOR in header.tensors:
        return Pooling(("--pooling", "rank"), True, context_size)
    # A chat model names no pooling, and one vector for each token is no embedding of a text.
    return Pooling(("--pooling", "mean") if kind in (None, _POOLING_NONE) else (), False, context_size)
