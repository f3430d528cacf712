"""The pooled connections to one model server, over plain sockets.

urllib3 was here before, and ``requests`` around it before that. docs/architecture.md has what each of them cost.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from mistral_api.event_loop import waiting
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.http_connection import HttpConnection
from mistral_api.upstream.server_address import ServerAddress
from mistral_api.version import VERSION

# A header with such characters would be another header, or another request.
_NOT_IN_HEADERS = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_PATHS = re.compile(r"[^!-~]")


class ModelServerRequest(NamedTuple):
    """A request. ``path``: below that of the model server's URL. ``headers``: besides those that all requests have."""

    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]


class ModelServerResponse:
    """The response to one request, whose head has come. ``status``: that of HTTP. It has to be closed."""

    __slots__ = ("_call", "_connection", "_connections", "_silence", "status")

    def __init__(
        self,
        status: int,
        connection: HttpConnection,
        connections: ModelServerConnections,
        call: UpstreamCall,
        silence: float,
    ) -> None:
        self.status = status
        self._connection: HttpConnection | None = connection
        self._connections = connections
        self._call = call
        self._silence = silence

    def shorten_silence(self, seconds: float) -> None:
        """Let later reads wait for at most so long."""
        self._silence = min(self._silence, seconds)

    def read(self) -> bytes:
        """Return what has come of the body, as soon as something has; nothing at its end.

        Raises ConnectionFailure and OSError.
        """
        connection = self._connection
        return b"" if connection is None else connection.read(self._silence)

    def close(self) -> None:
        """End the request. Its connection is used again where the body has been read to its end, else it is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._call.release()
            self._call.cut_off = self._call.cancelled or not connection.is_read
            if connection.can_be_used_again and not self._call.cancelled:
                self._connections.keep(connection)
            else:
                connection.close()


class ModelServerConnections:
    """The connections to one model server. Safe to use from many threads. Proxies of the environment are ignored."""

    def __init__(self, base_url: str, size: int, socket_path: str | None = None) -> None:
        """``size``: how many idle connections are kept. ``socket_path``: the Unix socket that is connected to."""
        self._address = ServerAddress.of(base_url, socket_path)
        self._size = size
        self._fields = (
            f" HTTP/1.1\r\nHost: {self._address.authority}\r\nUser-Agent: mistral-local-api/{VERSION}\r\n"
            "Accept-Encoding: identity\r\nContent-Type: application/json\r\n"
        )
        if self._address.credentials is not None:
            self._fields += f"Authorization: {self._address.credentials}\r\n"
        # The idle ones, the last used at the right: those that threads made, and those that tasks made.
        self._idle: tuple[deque[HttpConnection], deque[HttpConnection]] = (deque(), deque())
        self._closed = False

    def open(
        self, request: ModelServerRequest, deadlines: tuple[float, float], call: UpstreamCall
    ) -> ModelServerResponse:
        """Send a request, once, and return its response when it begins; nothing of its body has been read then.

        ``deadlines``: for connecting, and for each silence. ``call`` can end it from here on. The response has to be
        closed. Raises ConnectionFailure and OSError.
        """
        connect, silence = deadlines
        head = self._head(request)
        connection = self._idle_connection(call)
        if connection is None:
            connection = HttpConnection(self._address.connect(call, connect))
        try:
            connection.send(head, request.body or b"", silence)
            status = connection.read_status(silence)
        except BaseException:
            connection.close(call)
            call.cut_off = True
            raise
        return ModelServerResponse(status, connection, self, call, silence)

    def _head(self, request: ModelServerRequest) -> bytes:
        """Return the head of a request. Raises ValueError for what cannot stand in one."""
        method, path, body, headers = request
        if _NOT_IN_PATHS.search(path):
            raise ValueError(f"no path of a URL: {path!r}")
        fields = self._fields
        for name, value in headers.items():
            if _NOT_IN_HEADERS.search(value):
                raise ValueError(f"the header {name} has a control character")
            # A user and a password in the URL count more than a key.
            if name != "Authorization" or self._address.credentials is None:
                fields += f"{name}: {value}\r\n"
        if body is not None or method != "GET":
            fields += f"Content-Length: {len(body or b'')}\r\n"
        return f"{method} {self._address.prefix}{path}{fields}\r\n".encode("latin-1")

    def _idle_connection(self, call: UpstreamCall) -> HttpConnection | None:
        """Return the connection that was used last, given to the call; None where none can be used again."""
        idle = self._idle[waiting.in_task()]
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was quicker
                return None
            if connection.is_usable(time.monotonic()):
                connection.attach(call)
                return connection
            connection.close()
        return None

    def keep(self, connection: HttpConnection) -> None:
        """Keep a connection for the next request, where there is room, and close those that are too old."""
        idle = self._idle[connection.made_in_task]
        now = time.monotonic()
        with contextlib.suppress(IndexError):  # another thread was quicker
            while idle[0].has_expired(now):  # each of them may hold a thread of llama.cpp's
                idle.popleft().close()
        if self._closed or len(idle) >= self._size:
            connection.close()
            return
        connection.note_idle(now)
        idle.append(connection)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close every idle connection, when no task uses them any more; the others close with their responses."""
        self._closed = True
        for idle in self._idle:
            while idle:
                try:
                    connection = idle.pop()
                except IndexError:
                    break
                connection.close_at_end()
