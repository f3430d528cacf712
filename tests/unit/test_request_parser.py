"""The parser of requests: each malformed one gets a clear 4xx, holds nothing and is followed by no other."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waitress.adjustments import Adjustments

from mistral_api.errors import ApiError, Unauthorized
from mistral_api.security.request_head import RequestHead
from mistral_api.serving.connection_limits import ConnectionLimits
from mistral_api.serving.held_bytes import HeldBytes
from mistral_api.serving.hooks import RefuseEarly
from mistral_api.serving.request_parser import RequestParser
from tests.support.request_fuzz import feed, requests_like_http

BODY_BYTES = 100_000
LIMITS = ConnectionLimits(
    connections=100, address_connections=0, queued_requests=10, body_bytes=BODY_BYTES, held_bytes=1 << 30,
    header_seconds=20, body_rate=1024, keep_alive_seconds=60, send_seconds=60,
)  # fmt: skip
ADJUSTMENTS = Adjustments(max_request_header_size=LIMITS.header_bytes, max_request_body_size=BODY_BYTES + (1 << 20))


def make_parser(held: HeldBytes | None = None, refuse_early: RefuseEarly | None = None) -> RequestParser:
    return RequestParser(ADJUSTMENTS, LIMITS, held or HeldBytes(1 << 30), "192.0.2.1", refuse_early)


def status_of(request: bytes) -> int | None:
    """Return the status with which a request is refused; None where it is accepted or more of it is awaited."""
    parser = make_parser()
    feed(parser, request)
    error = parser.error
    parser.close()
    if error is None:
        return None
    return error.status if isinstance(error, ApiError) else int(error.code)


def with_headers(*lines: str, first: str = "POST /x HTTP/1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([first, "Host: test", *lines, "", ""]).encode("latin-1") + body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        # Lengths
        (with_headers("Content-Length: " + "9" * 5000), 413),
        (with_headers(f"Content-Length: {BODY_BYTES + 1}"), 413),
        (with_headers("Content-Length: -5"), 400),
        (with_headers("Content-Length: +5"), 400),
        (with_headers("Content-Length: 5,5"), 400),
        (with_headers("Content-Length: 0x5"), 400),
        (with_headers("Content-Length: 5 5"), 400),
        (with_headers("Content-Length:"), 400),
        (with_headers("Content-Length: 5", "Content-Length: 6"), 400),
        (with_headers("Content-Length: 5", "Content-Length: 5"), 400),
        (with_headers("Content-Length: \xb2"), 400),
        # Smuggling: GHSA-pg36-wpm5-g57p, GHSA-g2xc-35jw-c63p, GHSA-4ppp-gpcr-7qf6, GHSA-m5ff-3wj3-8ph4,
        # GHSA-968f-66r5-5v74, GHSA-4f7p-27jc-3c36
        (with_headers("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (with_headers("Content-Length: 100", "X-Header: x\nContent-Length: 0"), 400),
        (with_headers("Transfer-Encoding: \x0bchunked"), 400),
        (with_headers("Transfer-Encoding: chunked\xa0"), 400),
        (with_headers("Transfer-Encoding : chunked"), 400),
        (with_headers("Transfer-Encoding: identity, chunked"), 400),
        (with_headers("Transfer-Encoding: chunked, chunked"), 400),
        (with_headers("Transfer-Encoding: gzip"), 400),
        (with_headers("Transfer-Encoding:"), 400),
        (with_headers("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), 400),
        (with_headers("Transfer-Encoding:", " chunked"), 400),
        (with_headers("Transfer_Encoding: chunked"), 400),
        (with_headers("Content_Length: 5"), 400),
        (with_headers("Transfer-Encoding: chunked", first="POST /x HTTP/1.0"), 400),
        (with_headers("Content-Length: 0", "\x0bTransfer-Encoding: chunked"), 400),
        # Chunks
        (with_headers("Transfer-Encoding: chunked", body=b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"+5\r\nhello\r\n0\r\n\r\n"), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"-5\r\nhello\r\n0\r\n\r\n"), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"5 \r\nhello\r\n0\r\n\r\n"), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"5\r\nhelloXX0\r\n\r\n"), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"5;\x00=1\r\nhello\r\n0\r\n\r\n"), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"5;a=" + b"b" * 5000), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"5" * 5000), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"FFFFFFFFFFFFFFFF\r\n"), 413),
        (with_headers("Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 40_000), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"0\r\nX: " + b"y" * 20_000), 400),
        (with_headers("Transfer-Encoding: chunked", body=b"4000\r\n" + (b"x" * 0x4000 + b"\r\n4000\r\n") * 7), 413),
        # Targets
        (with_headers(first="GET http://[::1/x HTTP/1.1"), 400),
        (with_headers(first="GET http://other/x HTTP/1.1"), 400),
        (with_headers(first="GET http://test@other/x HTTP/1.1"), 400),
        (with_headers(first="GET ftp://test/x HTTP/1.1"), 400),
        (with_headers(first="GET file:///etc/passwd HTTP/1.1"), 400),
        (with_headers(first="GET test:443 HTTP/1.1"), 400),
        (with_headers(first="GET x HTTP/1.1"), 400),
        (with_headers(first="GET * HTTP/1.1"), 400),
        (with_headers(first="GET /x#y HTTP/1.1"), 400),
        (with_headers(first="GET /\x01 HTTP/1.1"), 400),
        (with_headers(first="GET /\xff HTTP/1.1"), 400),
        (with_headers(first="GET /gr\xc3\xb6\xc3\x9fe HTTP/1.1"), 400),
        (with_headers(first="GET /a%00b HTTP/1.1"), 400),
        (with_headers(first="GET /x y HTTP/1.1"), 400),
        (with_headers(first="GET /" + "x" * 9000 + " HTTP/1.1"), 414),
        (with_headers(first="CONNECT test:443 HTTP/1.1"), 405),
        # First lines
        (with_headers(first="G" * 40 + " / HTTP/1.1"), 400),
        (with_headers(first="get / HTTP/1.1"), 400),
        (with_headers(first=" GET / HTTP/1.1"), 400),
        (with_headers(first="\nGET / HTTP/1.1"), 400),
        (with_headers(first="\rGET / HTTP/1.1"), 400),
        (with_headers(first="\r\n GET / HTTP/1.1"), 400),
        (with_headers(first="GET\t/\tHTTP/1.1"), 400),
        (with_headers(first="GET  / HTTP/1.1"), 400),
        (with_headers(first="GET / HTTP/1.2"), 400),
        (with_headers(first="GET / HTTP/11.1"), 400),
        (with_headers(first="GET / http/1.1"), 400),
        (with_headers(first="GET / ICY/1.1"), 400),
        (b"GET /\r\n", 400),  # HTTP/0.9
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"\x00\x00\x00\x00", 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
        (b"GET / HTTP/1.1\nHost: test\n\n", 400),
        (b"x" * 20_000, 400),
        (b"X" * 20_000, 414),
        # Headers
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (with_headers("Host: other"), 400),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (with_headers("X: a\x00b"), 400),
        (with_headers("X: a\rb"), 400),
        (with_headers("X: a\nb"), 400),
        (with_headers("X: a\x7fb"), 400),
        (with_headers("X: a", " folded"), 400),
        (with_headers("X Y: a"), 400),
        (with_headers("X\x00: a"), 400),
        (with_headers("no colon"), 400),
        (with_headers(": a"), 400),
        (with_headers("\xfc: a"), 400),
        (with_headers(*["X: y"] * 200), 431),
        (with_headers("X: " + "y" * 70_000), 431),
        (with_headers("X: " + "y" * 70_000)[:-4], 431),
        (with_headers("Expect: tea"), 417),
        (with_headers("Expect: 100-continue", "Content-Length: 999999"), 413),
    ],
)  # fmt: skip
def test_malformed_request_is_refused(request_bytes: bytes, status: int) -> None:
    assert status_of(request_bytes) == status


@pytest.mark.parametrize(
    "request_bytes",
    [
        with_headers(first="GET / HTTP/1.0"),
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: [::1]:9000\r\n\r\n",
        with_headers("Content-Length: 5", body=b"hello"),
        with_headers("Content-Length: 005", body=b"hello"),
        with_headers("Transfer-Encoding: Chunked", body=b"5;a=b;c=\"d\"\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"),
        with_headers("Expect: 100-Continue"),
        with_headers("Expect: tea", first="GET / HTTP/1.0"),
        with_headers("session_id: dropped", "X-Empty:", "X-Latin: caf\xe9"),
        with_headers(first="GET http://test/x?y=z HTTP/1.1"),
        with_headers(first="GET HTTP://TEST HTTP/1.1"),
        with_headers(first="OPTIONS * HTTP/1.1"),
        with_headers(first="GET //x HTTP/1.1"),
        with_headers(first="GET /%zz/%2e%2e/[ HTTP/1.1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_well_formed_request_is_accepted(request_bytes: bytes, piece: int) -> None:
    parser = make_parser()
    feed(parser, request_bytes, piece)
    if parser.empty:  # the blank lines before a request
        parser = make_parser()
        feed(parser, request_bytes.lstrip(b"\r\n"), piece)
    assert parser.error is None
    assert (parser.completed, parser.expect_continue) == (True, False)


def test_absolute_url_is_served_as_its_path() -> None:
    parser = make_parser()
    feed(parser, with_headers(first="GET http://test/x?y=z HTTP/1.1"))
    assert (parser.path, parser.query) == ("/x", "y=z")


@pytest.mark.parametrize(
    ("spelling", "path"), [("/health/", "/health"), ("//v1//health", "/health"), ("/models/?a=/", "/v1/models")]
)
def test_gate_and_lanes_see_a_path_by_its_own_name(spelling: str, path: str) -> None:
    parser = make_parser()
    parser.received(with_headers(first=f"GET {spelling} HTTP/1.1"))
    assert not parser.error
    assert (parser.path, parser.head.path) == (path, path)


def test_headers_with_an_underscore_are_dropped() -> None:
    parser = make_parser()
    feed(parser, with_headers("X-Real-IP: 1", "X_Real_IP: 2"))
    assert parser.headers == {"HOST": "test", "X_REAL_IP": "1"}


@pytest.mark.parametrize(
    "header",
    [
        b"X:" + b" " * 60_000 + b"a",
        b"X: a" + b" " * 60_000 + b"\x00",
        b"X: " + b"a " * 30_000,
        b"X: a" + b"\t" * 60_000,
    ],
)
def test_header_with_many_spaces_is_parsed_in_linear_time(header: bytes) -> None:
    """CVE-2020-5236, and its like that is still in waitress's expression: a header of 64 KB took it half a minute."""
    began = time.process_time()
    status_of(b"GET / HTTP/1.1\r\nHost: test\r\n" + header + b"\r\n\r\n")
    assert time.process_time() - began < 0.5


def test_request_is_refused_by_its_head_before_its_body_is_read() -> None:
    heads: list[RequestHead] = []

    def refuse(head: RequestHead) -> ApiError | None:
        heads.append(head)
        return None if head.header("AUTHORIZATION") == "Bearer good" else Unauthorized("No key.")

    held = HeldBytes(1 << 30)
    parser = make_parser(held, refuse)
    feed(parser, with_headers("Content-Length: 90000", "X-Api-Key: bad"))
    assert (parser.completed, parser.error.status, held.total) == (True, 401, 0)
    (head,) = heads
    assert (head.method, head.path, head.peer, head.header("X_API_KEY")) == ("POST", "/x", "192.0.2.1", "bad")

    parser = make_parser(held, refuse)
    feed(parser, with_headers("Content-Length: 90000", "Authorization: Bearer good"))
    assert not parser.completed
    assert parser.error is None


def test_check_that_fails_lets_nobody_through() -> None:
    def broken(head: RequestHead) -> ApiError | None:
        raise RuntimeError(head.path)

    parser = make_parser(refuse_early=broken)
    feed(parser, with_headers("Content-Length: 90000", body=b"hello"))
    assert parser.error.status == 500


def test_request_without_a_body_is_left_to_the_application() -> None:
    parser = make_parser(refuse_early=lambda _head: Unauthorized("No key."))
    feed(parser, with_headers(first="GET / HTTP/1.1"))
    assert parser.error is None


def test_small_body_is_received_and_left_to_the_application() -> None:
    parser = make_parser(refuse_early=lambda _head: Unauthorized("No key."))
    feed(parser, with_headers("Content-Length: 5", body=b"hello"))
    assert parser.completed
    assert not parser.error


def test_held_bytes_follow_what_a_request_holds() -> None:
    held = HeldBytes(1 << 30)
    parser = make_parser(held)
    feed(parser, b"POST / HTTP/1.1\r\nX: ")
    assert held.total == 20
    feed(parser, b"y\r\nHost: test\r\nContent-Length: 6000\r\n\r\n")
    assert held.total == 0
    feed(parser, b"x" * 6000)
    assert (held.total, parser.completed) == (6000, True)
    stream = parser.get_body_stream()
    assert stream.read(5999) == b"x" * 5999
    assert held.total == 6000
    assert (stream.read(), held.total, stream.read()) == (b"x", 0, b"")
    parser.close()
    assert held.total == 0


@given(requests_like_http(), st.integers(1, 200))
@settings(max_examples=1500, deadline=None)
def test_parser_survives_any_bytes(request_bytes: bytes, piece: int) -> None:
    held = HeldBytes(1 << 30)
    parser = make_parser(held)
    feed(parser, request_bytes, piece)
    assert held.total <= len(request_bytes)
    if parser.error is not None:
        status = parser.error.status if isinstance(parser.error, ApiError) else parser.error.code
        assert parser.completed
        assert 400 <= status <= 501
        assert held.total == 0
    parser.close()
    assert held.total == 0


@given(requests_like_http(), st.integers(1, 50))
@settings(max_examples=500, deadline=None)
def test_pieces_in_which_a_request_arrives_make_no_difference(request_bytes: bytes, piece: int) -> None:
    whole, cut = make_parser(), make_parser()
    feed(whole, request_bytes)
    feed(cut, request_bytes, piece)
    assert (bool(whole.error), whole.completed) == (bool(cut.error), cut.completed)
    # One that is refused may be so before its path is there.
    assert whole.error or whole.path == cut.path


def test_path_of_a_refused_request_is_known_for_the_shape_of_its_error() -> None:
    for path in ("/api/chat", "/v1/messages"):
        parser = make_parser()
        feed(parser, with_headers(f"Content-Length: {BODY_BYTES + 1}", first=f"POST {path}?beta=true HTTP/1.1"))
        assert (parser.error.status, parser.asked_path) == (413, path)
        parser.close()
