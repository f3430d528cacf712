"""The responses of a model server, read from the bytes of one connection by llhttp, which is Node.js's parser.

A response ends where its head says so (RFC 9112, section 6.3): with its last chunk, after its ``Content-Length``, or
with the connection. llhttp does not tell which of these it is: only where a connection ends is the head read again.
"""

from __future__ import annotations

from types import SimpleNamespace

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from mistral_api.upstream.connection_errors import BrokenResponse

# The most bytes of a head, and of everything else that is no body: interim responses, trailers, chunk extensions.
HEAD_BYTES = 64 << 10


class ResponseParser:
    """Reads the responses of one connection, one after the other.

    ``status``: that of the response, 0 until its head is complete. ``pieces``: the parts of its body that have come;
    whoever takes them clears the list. ``complete``: whether it has ended. ``keeps_alive``: whether another request may
    follow it. ``failure``: why nothing more can be read; it comes after the pieces.
    """

    __slots__ = ("_barren", "_head", "_llhttp", "complete", "failure", "keeps_alive", "on_body", "pieces", "status")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        # llhttp looks its callbacks up when it is made, and calls this one for each piece of a body.
        self.on_body = self.pieces.append
        self.begin()
        self._llhttp = HttpResponseParser(self)

    def begin(self) -> None:
        """Expect the next response."""
        self.status = 0
        self.complete = False
        self.keeps_alive = False
        self.failure: BrokenResponse | None = None
        self._head = b""
        # How many bytes have come since the last piece of a body.
        self._barren = 0

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        if not self.status:
            self._head += data
        try:
            self._llhttp.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(f"no HTTP response: {error}")
            return
        if self.pieces:
            self._barren = 0
        elif not self.complete:
            self._barren += len(data)
            if self._barren > HEAD_BYTES:
                self._fail("a head that is too long")

    def end(self) -> None:
        """Note that the connection has ended, which ends some responses and breaks others off."""
        if not self.complete and self.status and not self.keeps_alive and not _has_length(self._head):
            self.complete = True
        elif not self.complete:
            self._fail("the connection was closed")
        self.keeps_alive = False

    def close(self) -> None:
        """Let go of llhttp, which holds this object by its callbacks."""
        del self._llhttp

    def _fail(self, reason: str) -> None:
        self.keeps_alive = False
        if not self.complete:
            self.failure = BrokenResponse(reason)

    def on_message_begin(self) -> None:
        """Take nothing that follows a complete response. What is raised here ends the parsing."""
        if self.complete:
            raise BrokenResponse("more than one response")

    def on_headers_complete(self) -> None:
        """Take the head. An interim response (1xx) is followed by the one that counts."""
        status = self._llhttp.get_status_code()
        if status >= 200:
            self.status, self.keeps_alive = status, self._llhttp.should_keep_alive()

    def on_message_complete(self) -> None:
        """Note the end of the response that counts."""
        if self.status:
            self.complete = True


def _has_length(head: bytes) -> bool:
    """Return whether the last head in these bytes, which begin a response, says where its body ends."""
    names: set[bytes] = set()
    reader = HttpResponseParser(
        SimpleNamespace(on_message_begin=names.clear, on_header=lambda name, _value: names.add(name.lower()))
    )
    try:
        reader.feed_data(head)
    except (HttpParserError, HttpParserUpgrade):
        return True
    return not names.isdisjoint((b"content-length", b"transfer-encoding"))
