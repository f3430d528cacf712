"""Waitress's parser of requests with our bounds: a strict head, chunks of a reasonable size, and what it holds counted.

A request that is refused has an ``error``, is ``completed`` and takes no further bytes: what follows on its connection
is dropped, and never read as another request.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import IO, Any

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, unquote_bytes_to_wsgi
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver
from waitress.utilities import BadRequest

from mistral_api.errors import ApiError, internal_error, refused_request
from mistral_api.security.request_head import RequestHead
from mistral_api.serving.connection_limits import ConnectionLimits
from mistral_api.serving.held_bytes import BodyStream, HeldBytes, HeldShare
from mistral_api.serving.hooks import RefuseEarly
from mistral_api.serving.request_head import (
    check_beginning,
    check_first_byte,
    malformed,
    parse_head,
    too_large,
)
from mistral_api.wire.paths import canonical_path

log = logging.getLogger(__name__)

# A smaller body is received before its head is checked: it costs less than a second check.
UNCHECKED_BYTES = 64 << 10
CHUNK_LINE_BYTES = 1 << 10
TRAILER_BYTES = 8 << 10
# What chunks may cost beside their content: 64 KiB, and an eighth of the content. Chunks of one byte would take the
# loop seconds.
FRAMING_BYTES, FRAMING_SHARE = 64 << 10, 8


class _ChunkedBody(ChunkedReceiver):  # type: ignore[misc] # waitress has no type hints
    """A chunked body. Waitress would collect a line with a chunk's size, or trailers, of any length."""

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if len(self.control_line) > CHUNK_LINE_BYTES:
            self.error = BadRequest("The line before a chunk of the body is too long.")
        elif len(self.trailer) > TRAILER_BYTES:
            self.error = BadRequest("The trailers of the body are too long.")
        return consumed


class RequestParser(HTTPRequestParser):  # type: ignore[misc] # waitress has no type hints
    """One request on its way in. ``received`` runs in the loop, ``refuse`` and ``close`` in any thread."""

    # For a request that is refused before they are known.
    path = command = request_uri = ""
    # What was asked for, also where the head is refused: an error has the shape of that API. No log names it.
    asked_path = ""
    body_rcv: Any

    def __init__(
        self,
        adj: Any,
        limits: ConnectionLimits,
        held: HeldBytes,
        address: str,
        refuse_early: RefuseEarly | None,
    ) -> None:
        super().__init__(adj)
        self._limits = limits
        self._address = address
        self._refuse_early = refuse_early
        self._held = held
        self._share = HeldShare()
        self._raw_bytes = 0

    @property
    def head(self) -> RequestHead:
        """The head of the request, as far as it is known."""
        return RequestHead(self.command, self.path, self._address, self.headers.get)

    @property
    def held_bytes(self) -> int:
        """The bytes that the request holds now."""
        return self._share.count

    def received(self, data: bytes) -> int:
        """Take bytes from the connection; return how many belong to this request."""
        if self.completed:
            return 0
        try:
            consumed = self._receive(data)
        except ApiError as error:
            self.refuse(error)
        except Exception:  # whatever a parser stumbles over, the client gets an answer
            log.exception("a request could not be parsed")
            self.refuse(malformed("The request could not be understood."))
        if self.error:
            consumed = len(data)
            self.close()
        self._count()
        return consumed

    def refuse(self, error: ApiError) -> None:
        """Make this the answer to the request, and read no more of it."""
        self.error = error
        self.completed = True
        self.expect_continue = False
        self.close()

    def _receive(self, data: bytes) -> int:
        in_head = self.body_rcv is None
        if in_head:
            begun = self.header_plus + data if self.header_plus else data
            if begun.startswith(b"HEAD "):  # whose response has no body, also where the rest is malformed
                self.command = "HEAD"
            check_first_byte(begun)
            if b"\r\n\r\n" not in begun:
                check_beginning(begun, self._limits)
        consumed: int = super().received(data)
        if not in_head:
            self._check_body(consumed)
        elif self.headers_finished:
            self._end_head()
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Take over what the head of the request says. Raises ApiError."""
        self.asked_path = _requested_path(header_plus)
        head = parse_head(header_plus, self._limits)
        self.command, self.version, self.headers = head.method, head.version, head.headers
        self.request_uri = f"{head.path}?{head.query}" if head.query else head.path
        self.path, self.query = canonical_path(unquote_bytes_to_wsgi(head.path.encode())), head.query
        self.asked_path = self.path
        self.proxy_scheme = self.proxy_netloc = self.fragment = ""
        self.url_scheme = self.adj.url_scheme
        connection = head.headers.get("CONNECTION", "").lower()
        self.connection_close = connection == "close" if head.version == "1.1" else connection != "keep-alive"
        self.expect_continue = head.expects_continue
        self.chunked, self.content_length = head.chunked, head.length
        if head.chunked:
            self.body_rcv = _ChunkedBody(OverflowableBuffer(self.adj.inbuf_overflow))
        elif head.length:
            self.body_rcv = FixedStreamReceiver(head.length, OverflowableBuffer(self.adj.inbuf_overflow))

    def _end_head(self) -> None:
        self.header_plus = b""
        if self.completed:  # there is no body, so nobody waits for leave to send one
            self.expect_continue = False
        elif self._refuse_early is not None and (self.chunked or self.content_length > UNCHECKED_BYTES):
            refusal = self._refusal(self._refuse_early)
            if refusal is not None:
                raise refusal

    def _refusal(self, refuse_early: RefuseEarly) -> ApiError | None:
        try:
            return refuse_early(self.head)
        except Exception:  # a check that fails lets nobody through
            log.exception("a request could not be checked before its body was read")
            return internal_error()

    def _check_body(self, consumed: int) -> None:
        """Raise ApiError for a body that is too large, or cut into pieces too small."""
        size = len(self.body_rcv)
        if not self.chunked:
            return
        self._raw_bytes += consumed
        self.body_bytes_received = size  # waitress would count the lines between the chunks
        if size + self.body_rcv.chunk_remainder > self._limits.body_bytes:
            raise too_large()
        if self._raw_bytes - size > FRAMING_BYTES + size // FRAMING_SHARE:
            raise malformed("The chunks of the body are too small.")

    def _count(self) -> None:
        body = 0 if self.body_rcv is None or self.error else len(self.body_rcv)
        self._held.change(self._share, len(self.header_plus) + body)

    def get_body_stream(self) -> IO[bytes]:
        """Return the body for the application."""
        stream: IO[bytes] = super().get_body_stream()
        if self.body_rcv is None:
            return stream
        return BodyStream(stream, len(self.body_rcv), self.close)  # type: ignore[return-value]

    def close(self) -> None:
        """Release what the request holds. It may be called again."""
        super().close()
        self.header_plus = b""
        self._held.change(self._share, 0)


def too_slow() -> ApiError:
    """Return a 408: the request did not arrive in time."""
    return refused_request(HTTPStatus.REQUEST_TIMEOUT, "The request arrived too slowly.")


def _requested_path(head: bytes) -> str:
    """Return the path in the first line of a head, whatever may be wrong with the rest."""
    _, _, target = head.partition(b"\r\n")[0].partition(b" ")
    return target.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
