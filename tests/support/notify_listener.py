"""The listening end of systemd's notification protocol: a real datagram socket, as the manager has."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path


class Listener:
    """What a process has said so far, a datagram each."""

    def __init__(self, address: str) -> None:
        """``address`` as in NOTIFY_SOCKET; @ begins an abstract one."""
        self.address = address
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Everything said until now, in order."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.said.append(self._socket.recv(4096).decode())
        return self.said

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[Listener]:
    """A listener on a socket in this folder."""
    listener = Listener(str(folder / "notify"))
    try:
        yield listener
    finally:
        listener.close()
