"""A stand-in for ``ggml-rpc-server``: the handshake of ggml's RPC protocol over a real socket, and nothing behind it.

Its bytes are those of the real one (protocol 7): ``tests/faults/test_rpc_workers_in_networks.py`` compares them where
there is one. Like the real one it serves one connection at a time.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

GIB = 1 << 30
GET_DEVICE_MEMORY, HELLO, DEVICE_COUNT = 11, 14, 15


class StandInWorker:
    """Listens from :meth:`listen` to :meth:`close`. ``received`` has the bytes of all requests, in their order."""

    def __init__(self, version: tuple[int, int, int] = (7, 0, 0), memory: tuple[tuple[int, int], ...] = ()) -> None:
        """``memory``: a pair (free, total) in bytes for each device."""
        self.version = version
        self.memory = memory or ((7 * GIB, 8 * GIB),)
        self.received = b""
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        """``host:port``, as LLAMA_ARG_RPC has it."""
        return f"127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Begin to take connections."""
        self._socket.listen(1)
        self._thread.start()

    def hang_up(self) -> None:
        """End this side of the connection that is served now."""
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, and end the connection that is served."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(OSError):
            self.hang_up()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            try:
                self._connection, _ = self._socket.accept()
            except OSError:
                return
            with self._connection, contextlib.suppress(OSError, EOFError):
                while True:
                    self._answer(self._connection)

    def _answer(self, connection: socket.socket) -> None:
        command, length = struct.unpack("<BQ", self._receive(connection, 9))
        body = self._receive(connection, length)
        if command == HELLO:
            response = struct.pack("<BBBx24x", *self.version)
        elif command == DEVICE_COUNT:
            response = struct.pack("<I", len(self.memory))
        elif command == GET_DEVICE_MEMORY:
            response = struct.pack("<QQ", *self.memory[struct.unpack("<I", body)[0]])
        else:
            raise EOFError
        connection.sendall(struct.pack("<Q", len(response)) + response)

    def _receive(self, connection: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = connection.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        self.received += data
        return data


@contextlib.contextmanager
def stand_in_worker(
    version: tuple[int, int, int] = (7, 0, 0), memory: tuple[tuple[int, int], ...] = ()
) -> Iterator[StandInWorker]:
    """Run a worker until the end of the block."""
    worker = StandInWorker(version, memory)
    worker.listen()
    try:
        yield worker
    finally:
        worker.close()
