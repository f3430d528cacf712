"""Bytes that look like HTTP requests and mostly are none, for tests that feed them to a parser."""

from __future__ import annotations

from random import Random
from typing import Protocol

from hypothesis import strategies as st

_METHODS = ["GET", "POST", "OPTIONS", "CONNECT", "PRI", "get", "", "M-SEARCH", "G\x00T"]
_TARGETS = [
    "/",
    "/v1/x?y=%00",
    "*",
    "http://test/",
    "http://[::1/x",
    "//x",
    "test:443",
    "/\xff",
    "/a%00",
    "x",
    "/#",
    "",
]
_VERSIONS = ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "", "ICY"]
_NAMES = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Expect",
    "Connection",
    "X",
    "X Y",
    "Content_Length",
    "",
    "\xfc",
]
_VALUES = [
    "test", "5", "+5", "-1", "5,5", "99999999999999999999", "0", "chunked", "gzip, chunked", "100-continue", "close",
    "keep-alive", "\x0bchunked", "a\x00b", " \t ", "", "\u00b2",
]  # fmt: skip
_ENDS = ["\r\n", "\n", "\r", "\r\n ", "\r\n\r\n"]
_BODIES = [
    b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\n", b"FFFFFFFFFF\r\n", b"0\r\nT: x\r\n\r\n",
    b"\r\n" * 20, b"5\r\nhelloX", b"g\r\n", b"GET / HTTP/1.1\r\n\r\n",
]  # fmt: skip


_STREAM_PARTS = [
    b'data: {"choices":[{"index":0,"delta":{"content":"h\xc3\xa9"}}]}\n\n',
    b": ping\n\n", b"data: \xff\n\n", b"\n\n", b"\r\n\r\n", b"x" * 100, b"data: {", b"data:",
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}],"prompt_progress":{"total":9,"processed":4}}\n\n',
    b'data: {"error":{"message":"boom","code":500}}\n\n', b'error: {"code":400,"message":"no"}\n\n',
    b'data: {"prompt_progress":[],"role":1}\n\n', b'data: {"error":[1]}\n\n',
    b'data: [1,"prompt_progress"]\n\n',
]  # fmt: skip


class Parser(Protocol):
    """What takes the bytes of a request."""

    completed: bool

    def received(self, data: bytes) -> int:
        """Take bytes; return how many belong to the request."""


def feed(parser: Parser, request: bytes, piece: int = 8192) -> None:
    """Feed a request in pieces, as a server does that reads from a socket."""
    while request and not parser.completed:
        consumed = parser.received(request[:piece])
        assert consumed > 0 or parser.completed
        request = request[consumed:]


def random_request(random: Random) -> bytes:
    """Return a request of the same parts, made a hundred times faster than by hypothesis, some of its bytes changed."""
    end = "\r\n" if random.random() < 0.9 else random.choice(_ENDS)
    first = f"{random.choice(_METHODS)} {random.choice(_TARGETS)} {random.choice(_VERSIONS)}"
    if random.random() < 0.7:
        first = "POST /x HTTP/1.1"
    fields = [f"{random.choice(_NAMES)}: {random.choice(_VALUES)}" for _ in range(random.randrange(5))]
    request = bytearray(
        (end.join([first, "Host: test", *fields]) + "\r\n\r\n").encode("latin-1") + random.choice(_BODIES)
    )
    for _ in range(random.choice([0, 0, 1, 3])):
        request[random.randrange(len(request))] = random.randrange(256)
    return bytes(request)


def random_stream(random: Random) -> bytes:
    """Return a stream of events, most of them broken."""
    parts = (random.choice(_STREAM_PARTS) for _ in range(random.randrange(8)))
    stream = bytearray(b"".join(parts) + random.choice([b"", b"data: [DONE]\n\n"]))
    for _ in range(random.choice([0, 0, 1, 3]) if stream else 0):
        stream[random.randrange(len(stream))] = random.randrange(256)
    return bytes(stream)


def requests_like_http() -> st.SearchStrategy[bytes]:
    """Return a strategy for requests of known and unknown parts, right and wrong, and for plain garbage."""
    ends = st.sampled_from([*["\r\n"] * 12, *_ENDS])
    text = st.text(st.characters(max_codepoint=255), max_size=8)
    first = st.tuples(
        st.sampled_from(_METHODS), st.just(" "), st.sampled_from(_TARGETS) | text, st.just(" "),
        st.sampled_from(_VERSIONS), ends,
    )  # fmt: skip
    field = st.tuples(
        st.sampled_from(_NAMES) | text, st.sampled_from([": ", ":", " : "]), st.sampled_from(_VALUES) | text, ends
    )
    fields = st.lists(field.map("".join), max_size=6).map("".join)
    head = st.builds(lambda first, fields: ("".join(first) + fields + "\r\n").encode("latin-1"), first, fields)
    built = st.builds(lambda head, body: head + body, head, st.sampled_from(_BODIES) | st.binary(max_size=64))
    return built | built | built | st.binary(max_size=200)
