"""A model server that is a bare socket: a test says, byte by byte, what each connection does."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

SECONDS = 10.0
Serve = Callable[[socket.socket], None]


class RawEngine:
    """``accepted``: how many connections there have been. ``serving``: their threads. ``released`` is set at the end of
    the test."""

    def __init__(self, listener: socket.socket, serve: Serve, tls: ssl.SSLContext | None = None) -> None:
        self.accepted = 0
        self.released = threading.Event()
        self._listener = listener
        # The port it listens on; of a Unix socket, nothing.
        self.port = 0 if isinstance(listener.getsockname(), str) else int(listener.getsockname()[1])
        self._serve = serve
        self._tls = tls
        self.serving: list[threading.Thread] = []

    def run(self) -> None:
        """Accept connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                thread = threading.Thread(target=self._attend, args=(connection,), daemon=True)
                self.serving.append(thread)
                thread.start()

    def _attend(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            connection.settimeout(SECONDS)
            with connection:
                self._serve(connection)

    def join(self) -> None:
        """Wait for what serves its connections."""
        for thread in self.serving:
            thread.join(SECONDS)


@contextlib.contextmanager
def raw_engine(
    serve: Serve, listener: socket.socket | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[RawEngine]:
    """Run one whose connections are served by a function, each on a thread of its own."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    engine = RawEngine(listener, serve, tls)
    thread = threading.Thread(target=engine.run, daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        engine.released.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SECONDS)
        engine.join()


def read_request(connection: socket.socket) -> bytes:
    """Return the head and the body of the next request; nothing where the client has closed the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return b""
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
