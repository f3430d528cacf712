"""A connection that is kept, as light as Python allows, so that a client takes little of what servers need."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

TIMEOUT_SECONDS = 60.0
_READ_BYTES = 1 << 16
_END_OF_HEAD, _END_OF_CHUNKS = b"\r\n\r\n", b"0\r\n\r\n"


class Answer(NamedTuple):
    """A response: its status, its head as it arrived, and its body; of a chunked one with the sizes of the chunks."""

    status: int
    head: bytes
    body: bytes

    def json(self) -> Any:
        """Return what the body says. Raises ValueError."""
        return json.loads(self.body)

    def header(self, name: bytes) -> str | None:
        """Return a header; ``name``: in small letters."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip().decode("latin-1")
        return None


class KeptConnection:
    """A connection to a port of loopback, opened again where it was closed. For one thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._arrived = b""

    def ask(self, method: str, path: str, body: bytes | None = None, *headers: str) -> Answer:
        """Send a request and return its whole answer. Raises OSError, also where the server closes before.

        A connection that was kept may have been closed meanwhile: then the request is sent once more on a new one.
        """
        was_kept = self._socket is not None
        try:
            self._send(method, path, body, headers)
            return self._read()
        except ConnectionError:
            self.close()
            if not was_kept:
                raise
        self._send(method, path, body, headers)
        return self._read()

    def post(self, path: str, body: dict[str, Any], *headers: str) -> Answer:
        """Send a JSON body and return the whole answer. Raises OSError."""
        return self.ask("POST", path, json.dumps(body).encode(), *headers)

    def leave_after_first_bytes(self, path: str, body: dict[str, Any]) -> None:
        """Send a request, wait for its head and what comes with it, and hang up. Raises OSError."""
        self._send("POST", path, json.dumps(body).encode(), ())
        self._receive()
        self.close()

    def close(self) -> None:
        """Hang up; the next request opens another connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._arrived = None, b""

    def _send(self, method: str, path: str, body: bytes | None, headers: tuple[str, ...]) -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}", *headers]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall("\r\n".join(lines).encode() + _END_OF_HEAD + (body or b""))

    def _receive(self) -> None:
        if self._socket is None:
            raise OSError("no connection")
        more = self._socket.recv(_READ_BYTES)
        if not more:
            self.close()
            raise ConnectionError("The server has closed the connection.")
        self._arrived += more

    def _read(self) -> Answer:
        while _END_OF_HEAD not in self._arrived:
            self._receive()
        head, _, self._arrived = self._arrived.partition(_END_OF_HEAD)
        answer = Answer(int(head[9:12]), head, self._read_body(head.lower()))
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return answer

    def _read_body(self, head: bytes) -> bytes:
        """Read the body; nothing follows it, since the next request is sent after it."""
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        while not self._arrived.endswith(_END_OF_CHUNKS) if not length else len(self._arrived) < int(length):
            self._receive()
        body, self._arrived = self._arrived, b""
        return body
