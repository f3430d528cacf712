"""Compressed bodies are decompressed in pieces, within their bound, and refused where they are not what they say."""

from __future__ import annotations

import contextlib
import gzip
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.errors import ApiError, InvalidRequest, MalformedRequest, Unavailable
from mistral_api.web import compressed_body
from mistral_api.web.request_body import json_body
from mistral_api.wire.content_coding import (
    MOST_CODINGS,
    MOST_PARTS,
    PIECE_BYTES,
    TAKEN,
    UnsupportedCoding,
    content_codings,
    decoded_pieces,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "br": lambda data: brotli.compress(data, quality=4),
}


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def decode(data: bytes, *codings: str, size: int = PIECE_BYTES, most: int = MOST) -> bytes:
    return b"".join(decoded_pieces(cut(data, size), list(codings), most))


@given(st.binary(max_size=300), st.lists(st.sampled_from(sorted(ENCODERS)), max_size=3), st.integers(2, 400))
def test_what_was_compressed_comes_out_as_it_was(content: bytes, codings: list[str], size: int) -> None:
    body = content
    for coding in codings:
        body = ENCODERS[coding](body)
    assert decode(body, *codings, size=size) == content


@pytest.mark.parametrize("coding", ENCODERS)
@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, MOST])
def test_bodies_of_several_pieces_come_out_whole(coding: str, size: int) -> None:
    content = bytes(index * index % 251 for index in range(size))
    for compressed in (ENCODERS[coding](content), ENCODERS[coding](b"a" * size)):
        assert len(decode(compressed, coding)) == size
    assert decode(ENCODERS[coding](content), coding, size=1000) == content


def test_deflate_is_taken_with_and_without_its_frame() -> None:
    assert decode(raw_deflate(b"hello " * 50), "deflate") == decode(zlib.compress(b"hello " * 50), "deflate")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_parts_one_after_the_other_are_one_body(coding: str) -> None:
    parts = b"".join(ENCODERS[coding](text) for text in (b"one", b"", b"two"))
    assert decode(parts, coding) == decode(parts, coding, size=3) == b"onetwo"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_too_many_parts_are_refused(coding: str) -> None:
    assert decode(ENCODERS[coding](b"") * MOST_PARTS, coding) == b""
    with pytest.raises(MalformedRequest):
        decode(ENCODERS[coding](b"") * (MOST_PARTS + 1), coding)


@given(st.sampled_from(sorted(ENCODERS)), st.binary(max_size=60), st.data())
def test_damaged_bodies_are_refused_as_such_or_decoded(coding: str, content: bytes, data: st.DataObject) -> None:
    body = bytearray(ENCODERS[coding](content))
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(MalformedRequest):
        decode(bytes(body), coding)


@pytest.mark.parametrize("coding", ENCODERS)
def test_bodies_that_are_cut_off_followed_by_others_or_no_such_thing_are_refused(coding: str) -> None:
    whole = ENCODERS[coding](b"hello" * 100)
    for body in (whole[:-1], whole[:5], whole + b"rest", b'{"messages": []}'):
        with pytest.raises(MalformedRequest, match=coding):
            decode(body, coding)
    assert decode(b"", coding) == b""


def test_a_window_of_zstd_beyond_that_of_http_is_refused() -> None:
    names = zstd.CompressionParameter
    parameters: dict[int, int] = {int(names.window_log): 27, int(names.content_size_flag): 0}
    compressor = zstd.ZstdCompressor(options=parameters)
    with pytest.raises(MalformedRequest):
        decode(compressor.compress(b"a" * 100) + compressor.flush(), "zstd")


@pytest.mark.parametrize("codings", [["gzip"], ["deflate"], ["zstd"], ["br"], ["gzip", "gzip"], ["br", "zstd"]])
def test_a_bomb_is_refused_before_it_is_large(codings: list[str]) -> None:
    bomb = bytes(50 << 20)
    for coding in codings:
        bomb = ENCODERS[coding](bomb)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest) as caught:
            for _ in decoded_pieces(cut(bomb, PIECE_BYTES), codings, MOST):
                pass
        assert tracemalloc.get_traced_memory()[1] < 2 * MOST
    finally:
        tracemalloc.stop()
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")


def test_what_expands_between_two_codings_has_the_same_bound() -> None:
    # Two gigabytes of empty members come out as nothing.
    endless = gzip.compress(gzip.compress(b"") * 100_000)
    with pytest.raises(ApiError):
        decode(endless, "gzip", "gzip")


@pytest.mark.parametrize(
    ("header", "codings"),
    [("GZip", ["gzip"]), ("identity", []), ("", []), (" br , identity,gzip ", ["br", "gzip"]), ("x-gzip", ["x-gzip"])],
)
def test_codings_are_read_from_their_header(header: str, codings: list[str]) -> None:
    assert content_codings(header) == codings


@pytest.mark.parametrize("header", ["lzma", "gzip, compress", ", ".join(["gzip"] * (MOST_CODINGS + 1)), "gz\xe9"])
def test_a_coding_that_is_not_taken_is_named_with_those_that_are(header: str) -> None:
    with pytest.raises(UnsupportedCoding) as caught:
        content_codings(header)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")
    assert all(coding in caught.value.message for coding in TAKEN)
    assert caught.value.headers["Accept-Encoding"] == ", ".join(TAKEN)
    if "," not in header and header.isascii():
        assert header in caught.value.message


def _json(content: bytes, coding: str, most: int = 8 << 20) -> object:
    app = Flask("test")
    app.config["MAX_CONTENT_LENGTH"] = most
    with app.test_request_context("/", method="POST", data=content, headers={"Content-Encoding": coding}):
        return json_body()


def test_a_decompressed_body_has_the_bounds_of_a_plain_one() -> None:
    assert _json(gzip.compress(b'{"a": 1}'), "gzip") == {"a": 1}
    assert _json(b'{"a": 1}', "identity") == {"a": 1}
    with pytest.raises(MalformedRequest, match="nested too deeply"):
        _json(gzip.compress(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"), "gzip")
    with pytest.raises(MalformedRequest, match="could not parse"):
        _json(gzip.compress(b"{broken"), "gzip")
    exact = b'"' + b"a" * 998 + b'"'
    assert _json(gzip.compress(exact), "gzip", most=1000) == "a" * 998
    with pytest.raises(InvalidRequest) as caught:
        _json(gzip.compress(exact), "gzip", most=999)
    assert caught.value.status == 413


def test_only_a_few_large_bodies_are_decompressed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed_body, "WAIT_SECONDS", 0.05)
    large, small = (gzip.compress(b'"' + b"a" * size + b'"') for size in (2 << 20, 1000))
    for _ in range(compressed_body.MOST_LARGE):
        compressed_body._large.acquire()
    try:
        assert _json(small, "gzip") == "a" * 1000
        with pytest.raises(Unavailable) as caught:
            _json(large, "gzip")
        assert caught.value.code == "overloaded"
    finally:
        for _ in range(compressed_body.MOST_LARGE):
            compressed_body._large.release()
    for _ in range(compressed_body.MOST_LARGE + 1):  # each lets go of its place, also where it fails
        assert _json(large, "gzip") == "a" * (2 << 20)
        with pytest.raises(MalformedRequest):
            _json(gzip.compress(b"[" * (2 << 20)), "gzip")
