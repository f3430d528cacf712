"""Responses of model servers as bytes: however they are cut, and whatever is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_api.upstream.connection_errors import BrokenResponse
from mistral_api.upstream.response_parser import HEAD_BYTES, ResponseParser

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Length: 5\r\n\r\nhello"
# The bytes of a response, its body, and whether its connection can be used again.
RESPONSES = [
    pytest.param(WHOLE, b"hello", True, id="content-length"),
    pytest.param(CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello", True, id="chunked"),
    pytest.param(CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", b"hello", True, id="extension-and-trailer"),
    pytest.param(WHOLE.replace(b"Server", b"Connection: close\r\nServer"), b"hello", False, id="close"),
    pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False, id="http-1.0"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + WHOLE, b"hello", True, id="1xx"),
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, id="no-content"),
    pytest.param(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"", True, id="no-reason"),
]
# The same, for bodies that end with their connection, and for what breaks off there.
UNTIL_CLOSE = [
    b"HTTP/1.1 200 OK\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\nHTTP/1.0 200 OK\r\n\r\nhello",
]
CUT = [
    b"",
    b"HTTP/1.1 20",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    WHOLE[:-1],
    WHOLE.replace(b"Server", b"Connection: close\r\nServer")[:-1],
    b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello",
    CHUNKED + b"5\r\nhello\r\n",
    CHUNKED.replace(b"Transfer", b"Connection: close\r\nTransfer") + b"5\r\nhello\r\n0\r\n",
]
GARBAGE = [
    b"\x00\xff not HTTP\r\n\r\n",
    b"<html>",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/3.7 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nbytes",
    CHUNKED + b"zz\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_BYTES,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000,
]


def _feed(parser: ResponseParser, pieces: list[bytes]) -> bytes:
    """Return the body that a parser has read of these pieces."""
    body = b""
    for piece in pieces:
        parser.feed(piece)
        body += b"".join(parser.pieces)
        parser.pieces.clear()
    return body


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize(("response", "body", "keeps_alive"), RESPONSES)
def test_response_is_the_same_however_it_is_cut(response: bytes, body: bytes, keeps_alive: bool) -> None:
    for first in range(len(response)):
        parser = ResponseParser()
        assert _feed(parser, [response[:first], response[first:]]) == body
        assert (parser.complete, parser.keeps_alive, parser.failure) == (True, keeps_alive, None)
        assert parser.status in (200, 204)
    parser = ResponseParser()
    for _ in range(2 if keeps_alive else 1):
        parser.begin()
        assert _feed(parser, _cut(response, 1)) == body
        assert parser.complete


@pytest.mark.parametrize("response", UNTIL_CLOSE)
def test_body_without_a_length_ends_with_its_connection(response: bytes) -> None:
    for size in (1, 1000):
        parser = ResponseParser()
        assert _feed(parser, _cut(response, size)) == b"hello"
        assert not parser.complete
        parser.end()
        assert (parser.complete, parser.keeps_alive, parser.failure) == (True, False, None)


@pytest.mark.parametrize("response", CUT)
def test_response_that_breaks_off_is_a_failure(response: bytes) -> None:
    for size in (1, 1000):
        parser = ResponseParser()
        _feed(parser, _cut(response, size))
        assert parser.failure is None
        parser.end()
        assert isinstance(parser.failure, BrokenResponse)
        assert not parser.complete
        assert not parser.keeps_alive


@pytest.mark.parametrize("response", GARBAGE, ids=lambda response: repr(response[:40]))
def test_garbage_is_a_failure(response: bytes) -> None:
    parser = ResponseParser()
    _feed(parser, _cut(response, 1000))
    assert isinstance(parser.failure, BrokenResponse)
    assert not parser.complete
    assert not parser.keeps_alive


def test_what_came_before_garbage_is_read() -> None:
    parser = ResponseParser()
    parser.feed(CHUNKED + b"5\r\nhello\r\nzz\r\n")
    assert parser.pieces == [b"hello"]
    assert parser.failure is not None


@pytest.mark.parametrize("more", [WHOLE, b"garbage", b"\x00"])
def test_nothing_that_follows_a_response_belongs_to_it(more: bytes) -> None:
    parser = ResponseParser()
    parser.feed(WHOLE + more)
    assert parser.pieces == [b"hello"]
    assert (parser.complete, parser.keeps_alive, parser.failure) == (True, False, None)


_PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@given(_PIECES, st.booleans(), st.lists(st.integers(1, 30), max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_body_is_read_as_it_was_sent(pieces: list[bytes], chunked: bool, sizes: list[int]) -> None:
    body = b"".join(pieces)
    if chunked:
        response = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    cut = []
    for size in sizes:
        cut.append(response[:size])
        response = response[size:]
    parser = ResponseParser()
    assert _feed(parser, [*cut, response]) == body
    assert (parser.complete, parser.keeps_alive) == (True, True)


@given(
    st.lists(
        st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n", b"Content-Length: 3\r\n", b"5\r\n"]) | st.binary(max_size=9)
    )
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_in_a_response_or_a_failure(pieces: list[bytes]) -> None:
    parser = ResponseParser()
    _feed(parser, pieces)
    parser.end()
    assert parser.complete != (parser.failure is not None)
    assert parser.status >= 200 or not parser.complete
