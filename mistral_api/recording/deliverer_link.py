"""How the process that delivers is told that somebody waits for it, and how others learn whether PostgreSQL answers it.

The holder of the writer's lock listens to datagrams on the loopback interface, on Linux as on Windows, and has the port
in a file beside the journal, with a secret that a datagram must hold and with whether the last delivery failed. A
datagram that gets lost costs what gathering a batch takes; nothing else depends on it.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from mistral_api.system.files import ReplacedFile, replace_file

log = logging.getLogger(__name__)

# The role of a process that does nothing else (system.process_lock).
DELIVERER = "deliverer-"
FILE_NAME = "deliverer.json"
_LOOPBACK = "127.0.0.1"
_MOST_BYTES = 256
_PORTS = range(1, 1 << 16)
CLOSE_SECONDS = 1.0
# How long a socket that fails is left alone.
PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class DelivererStatus:
    """What the process that delivers says of itself: its port, None where it has none, its secret, its last attempt."""

    port: int | None
    secret: str
    failing: bool

    @classmethod
    def read(cls, path: Path) -> DelivererStatus | None:
        """Return what a file says, None where it says nothing."""
        try:
            data = orjson.loads(path.read_bytes())
            port = data["port"]
            if port is not None and int(port) not in _PORTS:
                raise ValueError("no port")
            return cls(None if port is None else int(port), str(data["secret"]), bool(data["failing"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None


class DelivererListener:
    """The side of the process that delivers. Owns a thread, a socket and the file until :meth:`close`."""

    def __init__(self, folder: Path, on_notice: Callable[[], object]) -> None:
        """``folder`` is the journal's; ``on_notice`` is called when somebody waits, from the thread."""
        self._path = folder / FILE_NAME
        self._on_notice = on_notice
        self._closing = threading.Event()
        self._socket = _open_socket()
        port = None if self._socket is None else int(self._socket.getsockname()[1])
        self._status = DelivererStatus(port, secrets.token_hex(16), failing=False)
        self._thread = threading.Thread(target=self._listen, name="delivery-notices", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread to give
            self._close_socket()
            raise
        self._write()

    def _listen(self) -> None:
        if self._socket is None:
            return
        secret = self._status.secret.encode()
        while not self._closing.is_set():
            try:
                data = self._socket.recv(_MOST_BYTES)
            except OSError:  # Windows reports a datagram that is too long
                self._closing.wait(PAUSE_SECONDS)
                continue
            if hmac.compare_digest(data, secret):
                self._on_notice()

    def note_attempt(self, *, failing: bool) -> None:
        """Let others know whether the last attempt to deliver failed."""
        if failing != self._status.failing:
            self._status = DelivererStatus(self._status.port, self._status.secret, failing)
            self._write()

    def _write(self) -> None:
        try:
            replace_file(self._path, orjson.dumps(asdict(self._status)).decode())
        except OSError as error:  # a change then waits a moment longer
            log.debug("nobody can tell the process that delivers that somebody waits: %s", error)

    def close(self) -> None:
        """End the thread, and remove the file where it is still ours."""
        self._closing.set()
        if DelivererStatus.read(self._path) == self._status:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"", self._socket.getsockname())
            self._thread.join(timeout=CLOSE_SECONDS)
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _open_socket() -> socket.socket | None:
    """Return a socket that listens, None where the system has none to give."""
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            listener.bind((_LOOPBACK, 0))
        except OSError:
            listener.close()
            raise
    except OSError as error:
        log.debug("no notices of those who wait for delivery: %s", error)
        return None
    return listener


class DelivererLink:
    """The side of processes that do not deliver. Safe to use from many threads. Owns a socket until :meth:`close`."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the journal's."""
        path = folder / FILE_NAME
        self._file = ReplacedFile(path, lambda: DelivererStatus.read(path), None)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def deliver_now(self) -> None:
        """Have the process that delivers do so without delay."""
        status = self._file.current()
        if status is not None and status.port is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(status.secret.encode(), (_LOOPBACK, status.port))

    def is_failing(self) -> bool:
        """Return whether the last attempt of the process that delivers failed."""
        status = self._file.current()
        return status is not None and status.failing

    def close(self, _seconds: float = 0.0) -> None:
        """Close the socket. The other process goes on."""
        self._socket.close()
