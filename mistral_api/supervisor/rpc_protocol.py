"""The first words of ggml's RPC protocol, by which a worker says its version and the memory of its devices.

A request is a command (one byte), the length of its body (eight bytes) and the body; a response is a length and a
body. All numbers are little-endian, all structures packed. HELLO is the first command and has had its number in every
version; its body is the client's transports (24 bytes, all zero for plain TCP). Source: llama.cpp,
ggml/src/ggml-rpc/ggml-rpc.cpp and transport.h (protocol 7, build 11434).

A worker serves one connection at a time, and the system accepts the next ones for it meanwhile: then a handshake gets
no answer.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass

from mistral_api.control.rpc_workers import WorkerAddress

GET_DEVICE_MEMORY, HELLO, DEVICE_COUNT = 11, 14, 15
CAPABILITY_BYTES = 24
_REQUEST = struct.Struct("<BQ")
_LENGTH = struct.Struct("<Q")
_HELLO_RESPONSE = struct.Struct(f"<BBBx{CAPABILITY_BYTES}s")
_COUNT = struct.Struct("<I")
_MEMORY = struct.Struct("<QQ")
# More devices than any machine has: a worker that claims more is none.
MOST_DEVICES = 64


class WorkerAway(Exception):
    """No connection: nobody listens there, or nobody hears us. The message says why."""


class WorkerBusy(Exception):
    """It has taken the connection and answers no handshake: another client has it, or it is stopped."""


class WorkerIncompatible(Exception):
    """It has ended the handshake, or said what is no answer: it speaks another version, or is something else."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker says of itself. Memory is in bytes, a pair (free, total) for each device."""

    version: tuple[int, int, int]
    memory: tuple[tuple[int, int], ...]


def greet(address: WorkerAddress, seconds: float, local_endpoint: tuple[str, int] | None = None) -> Greeting:
    """Connect to a worker, and return what it says within so many seconds.

    ``local_endpoint``: this machine's address and port for the connection. Raises WorkerAway, WorkerBusy or
    WorkerIncompatible.
    """
    conversation = _Conversation(_connect(address, seconds, local_endpoint), time.monotonic() + seconds)
    with contextlib.closing(conversation):
        major, minor, patch, _ = _HELLO_RESPONSE.unpack(
            conversation.ask(HELLO, bytes(CAPABILITY_BYTES), _HELLO_RESPONSE.size)
        )
        (count,) = _COUNT.unpack(conversation.ask(DEVICE_COUNT, b"", _COUNT.size))
        if count > MOST_DEVICES:
            raise WorkerIncompatible(f"it claims {count} devices")
        memory = [conversation.ask(GET_DEVICE_MEMORY, _COUNT.pack(device), _MEMORY.size) for device in range(count)]
    free_and_total = [_MEMORY.unpack(each) for each in memory]
    return Greeting((major, minor, patch), tuple((int(free), int(total)) for free, total in free_and_total))


def _connect(address: WorkerAddress, seconds: float, local_endpoint: tuple[str, int] | None) -> socket.socket:
    """Connect over IPv4, the only one that ggml's transport knows. Raises WorkerAway."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if local_endpoint is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(local_endpoint)
        connection.settimeout(seconds)
        connection.connect((address.host, address.port))
    except TimeoutError as error:
        connection.close()
        raise WorkerAway(f"no answer within {seconds:.0f} s") from error
    except OSError as error:
        connection.close()
        raise WorkerAway((error.strerror or str(error)).lower()) from error
    return connection


class _Conversation:
    """Owns a connection to a worker until :meth:`close`."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def ask(self, command: int, body: bytes, response_bytes: int) -> bytes:
        """Send a command and return the body of its response. Raises WorkerBusy or WorkerIncompatible."""
        try:
            self._limit_wait()
            self._connection.sendall(_REQUEST.pack(command, len(body)) + body)
            (length,) = _LENGTH.unpack(self._receive(_LENGTH.size))
            if length != response_bytes:
                raise WorkerIncompatible(f"its answer to command {command} has {length} bytes and not {response_bytes}")
            return self._receive(response_bytes)
        except TimeoutError as error:
            raise WorkerBusy("no answer to the handshake") from error
        except OSError as error:
            raise WorkerIncompatible((error.strerror or str(error)).lower()) from error

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            self._limit_wait()
            piece = self._connection.recv(size - len(received))
            if not piece:
                raise WorkerIncompatible("it ended the handshake")
            received += piece
        return received

    def _limit_wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)

    def close(self) -> None:
        """Close the connection; the worker then takes its next one."""
        self._connection.close()
