"""GGUF files that are made to harm their reader: a clear error in little time and memory, whatever the header says."""

from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mistral_api.model_files import gguf
from mistral_api.model_files.gguf import GgufError, read_header, read_tokenizer
from tests.support.gguf_files import ARRAY, LLAMA, STRING, U32, encode_string, gguf_bytes

HUGE = (2**31, 2**32, 2**62, 2**63 - 1)
WORDS: dict[str, str | int | list[str]] = {**LLAMA, "tokenizer.ggml.tokens": ["a", "bc", ""]}
WHOLE = gguf_bytes(WORDS, (64, 100))


def _head(tensors: int, pairs: int) -> bytes:
    return b"GGUF" + struct.pack("<Iqq", 3, tensors, pairs)


def _pair(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def _tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    layout = f"<I{len(shape)}qIQ"
    return struct.pack("<Q", len(name)) + name + struct.pack(layout, len(shape), *shape, kind, offset)


def _string_array(count: int) -> bytes:
    return struct.pack("<IQ", STRING, count)


HOSTILE: dict[str, bytes] = {
    **{f"{count} values": _head(0, count) for count in HUGE},
    **{f"{count} tensors": _head(count, 0) for count in HUGE},
    "negative values": _head(0, -1),
    "negative tensors": _head(-(2**63), 0),
    "a key beyond the file": _head(0, 1) + struct.pack("<Q", 2**64 - 1) + b"x",
    "a string beyond the file": _head(0, 1) + _pair(b"k", STRING, struct.pack("<Q", 2**63)),
    "an array of strings beyond the file": _head(0, 1) + _pair(b"k", ARRAY, _string_array(2**64 - 1)),
    "an array of numbers beyond the file": _head(0, 1) + _pair(b"k", ARRAY, struct.pack("<IQ", 12, 2**61)),
    "an array whose bytes overflow": _head(0, 1) + _pair(b"k", ARRAY, struct.pack("<IQ", 12, 2**61 + 1)),
    "an array of arrays": _head(0, 1) + _pair(b"k", ARRAY, struct.pack("<IQIQ", ARRAY, 1, ARRAY, 1)),
    "a type of 4 billion": _head(0, 1) + _pair(b"k", 2**32 - 1, b""),
    "a long key": _head(0, 1) + _pair(b"k" * 70_000, U32, bytes(4)),
    "a key twice": _head(0, 2) + _pair(b"k", U32, bytes(4)) * 2,
    "a long key twice": _head(0, 2) + _pair(b"k" * 300, U32, bytes(4)) * 2,
    "a long tensor name": _head(1, 0) + _tensor(b"t" * 300, (1,)),
    "a tensor twice": _head(2, 0) + _tensor(b"t", (1,)) * 2 + bytes(64),
    "many dimensions": _head(1, 0) + struct.pack("<Q", 1) + b"t" + struct.pack("<I", 2**32 - 1),
    "a negative dimension": _head(1, 0) + _tensor(b"t", (-1,)),
    "negative dimensions whose product is not": _head(1, 0) + _tensor(b"t", (-1, -1)),
    "dimensions whose product overflows": _head(1, 0) + _tensor(b"t", (2**32, 2**32)),
    "a tensor beyond the file": _head(1, 0) + _tensor(b"t", (2**40,)),
    "an offset beyond the file": _head(1, 0) + _tensor(b"t", (1,), offset=2**64 - 1),
    "an alignment of 0": _head(0, 1) + _pair(b"general.alignment", U32, bytes(4)),
    "an alignment of 3": _head(0, 1) + _pair(b"general.alignment", U32, struct.pack("<I", 3)),
    "an alignment of 2 GiB": _head(0, 1) + _pair(b"general.alignment", U32, struct.pack("<I", 2**31)),
    "an alignment that is a text": _head(0, 1) + _pair(b"general.alignment", STRING, encode_string("32")),
    "an alignment that is true": _head(0, 1) + _pair(b"general.alignment", 7, b"\1"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("more", [0, 1000])
def test_a_header_that_lies_is_refused_in_one_sentence(tmp_path: Path, what: str, more: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(HOSTILE[what] + bytes(more))
    with pytest.raises(GgufError) as refused:
        read_header(path)
    assert str(refused.value).startswith(("is truncated", "has ", "says "))
    assert "\n" not in str(refused.value)


def _sparse(path: Path, start: bytes, size: int) -> Path:
    """Write a file of zeros, of which only the start takes room on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    "start",
    [
        _head(0, gguf.MOST_PAIRS) + _pair(b"k", ARRAY, _string_array(gguf.MOST_STRINGS + 1)),
        _head(0, gguf.MOST_PAIRS) + _pair(b"k", ARRAY, _string_array(2**40)),
        _head(0, 1) + _pair(b"k", ARRAY, struct.pack("<IQ", 0, 3 << 30)),
        _head(0, 1) + _pair(b"k", STRING, struct.pack("<Q", 3 << 30)),
        _head(gguf.MOST_TENSORS, 0),
        _head(2**40, 2**40),
    ],
)
def test_a_large_file_of_nothing_costs_neither_time_nor_memory(tmp_path: Path, start: bytes) -> None:
    path = _sparse(tmp_path / "m.gguf", start, 4 << 30)
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(GgufError):
        read_header(path)
    assert time.monotonic() - started < 10
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_the_largest_header_that_is_read_takes_little_memory(tmp_path: Path) -> None:
    """As many values and tensors as there may be, with long texts in them."""
    text = struct.pack("<Q", 2000) + b"x" * 2000
    pairs = b"".join(_pair(b"key.%d" % number, STRING, text) for number in range(gguf.MOST_PAIRS))
    tensors = b"".join(_tensor(b"blk.%d.attn_q.weight" % number, (1,)) for number in range(20_000))
    path = tmp_path / "m.gguf"
    path.write_bytes(_head(20_000, gguf.MOST_PAIRS) + pairs + tensors + bytes(100))
    tracemalloc.start()
    header = read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert not header.metadata  # texts of that length are left out
    assert len(header.tensors) == 20_000


def test_file_that_ends_within_its_vocabulary_has_no_tokenizer(tmp_path: Path) -> None:
    whole = _head(0, 1) + _pair(b"tokenizer.ggml.tokens", ARRAY, _string_array(1) + encode_string("x"))
    path = tmp_path / "m.gguf"
    path.write_bytes(whole)
    assert read_tokenizer(path).tokens == 1
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(GgufError):
            read_tokenizer(path)


def _read_or_refuse(path: Path, content: bytes) -> None:
    """Read a file: it must be described or refused, in little time, and a description must fit the file."""
    path.write_bytes(content)
    before = time.thread_time()
    with contextlib.suppress(GgufError):
        assert read_tokenizer(path).tokens
    header = None
    with contextlib.suppress(GgufError):
        header = read_header(path)
    assert time.thread_time() - before < 1
    if header is None:
        return
    assert 0 <= header.needed_bytes <= len(content)
    assert header.parameters >= 0
    assert all(len(value) <= gguf.KEPT_STRING_BYTES for value in header.metadata.values() if isinstance(value, str))


_NUMBERS = st.sampled_from([0, 1, 2, 8, 9, 31, 32, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1])


@st.composite
def _changed_files(draw: st.DrawFn) -> bytes:
    """A whole file with some of its bytes and numbers changed, and maybe its end cut off."""
    content = bytearray(WHOLE[: draw(st.integers(0, len(WHOLE)))] if draw(st.booleans()) else WHOLE)
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(0, max(0, len(content) - 1)))
        width = draw(st.sampled_from([1, 4, 8]))
        number = draw(_NUMBERS) % 256**width
        content[position : position + width] = number.to_bytes(width, "little")
    return bytes(content)


@st.composite
def _made_files(draw: st.DrawFn) -> bytes:
    """A header that is put together from odd values."""
    pairs = draw(st.lists(st.tuples(st.binary(max_size=12), st.integers(0, 14), st.binary(max_size=40)), max_size=6))
    shapes = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 100), max_size=5)
    tensors = draw(st.lists(st.tuples(st.binary(max_size=12), shapes, st.integers(0, 45), _NUMBERS), max_size=6))
    claimed: Any = draw(st.sampled_from([(len(tensors), len(pairs)), (2**62, 2**62), (-1, -1)]))
    head = _head(*claimed) + b"".join(_pair(*pair) for pair in pairs)
    body = b"".join(_tensor(name, tuple(shape), kind, offset) for name, shape, kind, offset in tensors)
    return head + body + bytes(draw(st.integers(0, 200)))


@given(content=_changed_files() | _made_files() | st.binary(max_size=300).map(lambda each: b"GGUF\3\0\0\0" + each))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_breaks_the_reader(tmp_path: Path, content: bytes) -> None:
    _read_or_refuse(tmp_path / "m.gguf", content)


@pytest.mark.slow
@given(content=_changed_files() | _made_files())
@settings(
    max_examples=10_000, deadline=None, derandomize=False, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_file_breaks_the_reader_for_a_minute(tmp_path: Path, content: bytes) -> None:
    _read_or_refuse(tmp_path / "m.gguf", content)
