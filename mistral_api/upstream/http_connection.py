"""One connection to a model server: a request is sent, its response is read, and then the next one.

What a generated token costs is decided here: one wait, one ``recv`` and one call of llhttp. A ``recv`` that has filled
less than its buffer has emptied the socket, so the next one waits first, and does not fail first.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial

from mistral_api.event_loop import waiting
from mistral_api.event_loop.task import Loop, current_task, has_input
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connection_errors import Silence
from mistral_api.upstream.response_parser import ResponseParser
from mistral_api.upstream.server_address import wait_as_wanted

# llama.cpp (cpp-httplib) and uvicorn close a connection that has been idle for 5 s. A connection that has been idle for
# longer than this is not used again, so that no request meets the closing.
MAX_IDLE_SECONDS = 3.0
# How much is read at once: enough for a chunk, and more where a long body comes.
_CHUNK_BYTES = 16 << 10
_LONG_BODY_BYTES = 64 << 10
# A body up to this size goes out together with its head: copying it costs less than another system call.
_JOINED_BYTES = 64 << 10


class HttpConnection:
    """A connected socket, with the parser of what comes from it. One request at a time."""

    __slots__ = ("_buffer_size", "_is_tls", "_last_used", "_loop", "_parser", "_socket", "_waits_first")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._parser = ResponseParser()
        self._is_tls = isinstance(connected, ssl.SSLSocket)
        self._buffer_size = _CHUNK_BYTES
        self._waits_first = False
        self._last_used = 0.0
        # The event loop watches the sockets of its tasks, until it is told to forget them.
        task = current_task()
        self._loop = None if task is None else task.loop

    @property
    def made_in_task(self) -> bool:
        """Whether a task has connected it; then tasks alone may use it."""
        return self._loop is not None

    def attach(self, call: UpstreamCall) -> None:
        """Let a call shut the socket down."""
        call.attach(self._socket)

    def has_expired(self, now: float) -> bool:
        """Whether it has been idle for too long. ``now``: the monotonic clock."""
        return now - self._last_used >= MAX_IDLE_SECONDS

    def is_usable(self, now: float) -> bool:
        """Whether another request may be sent. ``now``: the monotonic clock."""
        return not self.has_expired(now) and not has_input(self._socket)  # whatever can be read is the end

    def note_idle(self, now: float) -> None:
        """Note that its response has been read. ``now``: the monotonic clock."""
        self._last_used = now

    @property
    def is_read(self) -> bool:
        """Whether the response has been received to its end."""
        return self._parser.complete

    @property
    def can_be_used_again(self) -> bool:
        """Whether the response has been read to its end, and another one may follow."""
        return self._parser.complete and self._parser.keeps_alive and not self._parser.pieces

    def send(self, head: bytes, body: bytes, seconds: float) -> None:
        """Send a request. ``seconds``: for how long the peer may take nothing. Raises Silence and OSError.

        A peer that does not read to the end may have answered nevertheless.
        """
        self._parser.begin()
        self._waits_first = not self._is_tls
        try:
            if len(body) <= _JOINED_BYTES:
                self._send(head + body, seconds)
            else:
                self._send(head, seconds)
                self._send(body, seconds)
        except (BrokenPipeError, ConnectionResetError):
            self._waits_first = False

    def _send(self, data: bytes, seconds: float) -> None:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:], seconds)

    def _send_rest(self, rest: memoryview, seconds: float) -> None:
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except ssl.SSLWantReadError:
                came = waiting.readable(self._socket, seconds)
            except (BlockingIOError, ssl.SSLWantWriteError):
                came = waiting.writable(self._socket, seconds)
            else:
                continue
            if not came:
                raise Silence("the model server does not take the request")

    def read_status(self, seconds: float) -> int:
        """Return the status of the response, once its head is complete. Raises ConnectionFailure and OSError.

        ``seconds``: the longest silence.
        """
        parser = self._parser
        while not parser.status:
            if parser.failure is not None:
                raise parser.failure
            self._receive(seconds)
        return parser.status

    def read(self, seconds: float) -> bytes:
        """Return what has come of the body, as soon as something has; nothing at its end.

        ``seconds``: the longest silence. Raises ConnectionFailure and OSError.
        """
        parser = self._parser
        pieces = parser.pieces
        while not pieces:
            if parser.complete:
                return b""
            if parser.failure is not None:
                raise parser.failure
            self._receive(seconds)
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return piece

    def _receive(self, seconds: float) -> None:
        """Wait for more bytes, and have them parsed."""
        if self._waits_first and not waiting.readable(self._socket, seconds):
            raise Silence("nothing came")
        size = self._buffer_size
        try:
            data = self._socket.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
            if not wait_as_wanted(self._socket, wanted, seconds):
                raise Silence("nothing came") from None
            self._waits_first = False
            return
        if not data:
            self._parser.end()
            return
        self._parser.feed(data)
        # TLS hands out one record at a time, and may hold more than the socket shows.
        self._waits_first = len(data) < size and not self._is_tls
        self._buffer_size = _CHUNK_BYTES if len(data) < size else _LONG_BODY_BYTES
        if len(data) == size:  # a model server that is always ahead must not have the event loop for itself
            waiting.give_turn()

    def close(self, call: UpstreamCall | None = None) -> None:
        """Close the connection; ``call`` must not shut it down any more.

        What a task has connected is closed in the loop, which must not take the next socket of its number for it.
        """
        if call is not None:
            call.release()
        if self._loop is None or waiting.in_task():
            waiting.forget(self._socket)
            self.close_at_end()
        else:
            self._loop.call_soon(partial(self._close_in_loop, self._loop))

    def _close_in_loop(self, loop: Loop) -> None:
        loop.forget(self._socket.fileno())
        self.close_at_end()

    def close_at_end(self) -> None:
        """Close the connection when no task runs any more."""
        self._socket.close()
        self._parser.close()
