"""A web server with images, over a real socket: it counts connections, and misbehaves as the path says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# A whole PNG of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc330000"
    "000049454e44ae426082"
)


@dataclass
class ImageServer:
    """What the server has seen: every connection, and the heads of the requests on them."""

    port: int = 0
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/image.png", host: str = "127.0.0.1", scheme: str = "http") -> str:
        """Return a URL of this server."""
        return f"{scheme}://{host}:{self.port}{path}"


def _whole(content: bytes, head: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def _drip(connection: socket.socket, seen: ImageServer, content: bytes) -> None:
    """Send a byte twenty times a second, for ever: no single read waits long."""
    connection.sendall(content)
    while not seen.stopped.wait(0.05):
        connection.sendall(b"x")


_ANSWERS: dict[str, Callable[[ImageServer], bytes]] = {
    "/image.png": lambda _seen: _whole(PNG),
    "/page": lambda _seen: _whole(b"<html>no image</html>", "200 OK\r\nContent-Type: image/png"),
    "/missing": lambda _seen: _whole(b"", "404 Not Found"),
    "/redirect": lambda seen: _whole(b"", f"302 Found\r\nLocation: {seen.url()}"),
    "/huge": lambda _seen: b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + PNG,
    "/endless": lambda _seen: b"HTTP/1.1 200 OK\r\n\r\n" + PNG + bytes(4 << 20),
    "/cut": lambda _seen: b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + PNG,
    "/zipped": lambda _seen: _whole(b"\x1f\x8b\x08\x00" + bytes(20), "200 OK\r\nContent-Encoding: gzip"),
}
_DRIPPING = {"/drip-head": b"HTTP/1.1 200 OK\r\nX: ", "/drip-body": b"HTTP/1.1 200 OK\r\n\r\n" + PNG}


def _serve(connection: socket.socket, seen: ImageServer) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(10)
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                return
            head += piece
        seen.heads.append(head.decode())
        path = head.split(b" ")[1].decode().partition("?")[0]
        if path in _DRIPPING:
            _drip(connection, seen, _DRIPPING[path])
        else:
            connection.sendall(_ANSWERS[path](seen))


def _accept(listener: socket.socket, seen: ImageServer, context: ssl.SSLContext | None) -> None:
    while not seen.stopped.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        seen.connections += 1
        threading.Thread(target=_serve_secured, args=(connection, seen, context), daemon=True).start()


def _serve_secured(connection: socket.socket, seen: ImageServer, context: ssl.SSLContext | None) -> None:
    try:
        secured = connection if context is None else context.wrap_socket(connection, server_side=True)
    except OSError:  # the client does not trust us, or speaks no TLS
        connection.close()
        return
    _serve(secured, seen)


@contextlib.contextmanager
def image_server(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[ImageServer]:
    """Run the server, with TLS where there is a context."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(0.05)
        seen = ImageServer(listener.getsockname()[1])
        thread = threading.Thread(target=_accept, args=(listener, seen, context), daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            seen.stopped.set()
            thread.join(timeout=5)


def settle() -> None:
    """Give a connection that must not come the time to come."""
    time.sleep(0.2)
