"""The receiving end of systemd's notification protocol: a real datagram socket, as the service manager has."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("systemd's sockets are not Windows'.")

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path


class NotifyListener:
    """Collects the datagrams that a process sends."""

    def __init__(self, address: str) -> None:
        """Listen on ``address`` as in NOTIFY_SOCKET; a leading @ means an abstract socket."""
        self.address = address
        self.datagrams: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def received(self) -> list[str]:
        """Return all datagrams until now, in order."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.datagrams.append(self._socket.recv(4096).decode())
        return self.datagrams

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@contextlib.contextmanager
def open_listener(folder: Path) -> Iterator[NotifyListener]:
    """Yield a listener on a socket in this folder."""
    listener = NotifyListener(str(folder / "notify"))
    try:
        yield listener
    finally:
        listener.close()
