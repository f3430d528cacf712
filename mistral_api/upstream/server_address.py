"""Where a model server is reached: what its URL names, and a connected socket to it.

Sockets are non-blocking. All waits are those of :mod:`event_loop.waiting`, so a task can connect as well as a thread.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import certifi

from mistral_api.event_loop import waiting
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connection_errors import NotConnected, Silence
from mistral_api.upstream.name_lookup import Addresses, NameLookup

_DEFAULT_PORTS = {"http": 80, "https": 443}
# How often a Unix socket is tried again whose queue is full: the system tells nobody when it has room.
_QUEUE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """What the URL of a model server names.

    ``host``: without brackets. ``authority``: what goes into ``Host``. ``prefix``: the path before all paths, without
    a slash at its end. ``credentials``: the ``Authorization`` of its user and password. ``tls``: with what its
    certificate is verified, for https. ``socket_path``: the Unix socket that is connected to instead. ``names``: what
    resolves the host.
    """

    host: str
    port: int
    authority: str
    prefix: str
    credentials: str | None = field(repr=False)
    tls: ssl.SSLContext | None
    socket_path: str | None
    names: NameLookup = field(repr=False, compare=False)

    @classmethod
    def of(cls, url: str, socket_path: str | None = None) -> ServerAddress:
        """Read a URL that the settings have let through."""
        parts = urlsplit(url)
        host, default_port = parts.hostname or "", _DEFAULT_PORTS[parts.scheme]
        if ":" in host:
            host = host.replace("%25", "%")  # before a zone (RFC 6874), which is of no concern to the server
            shown = f"[{host.partition('%')[0]}]"
        else:
            shown = host.encode("idna").decode()
        user, port = parts.netloc.rpartition("@")[0], parts.port or default_port
        return cls(
            host=host,
            port=port,
            authority=shown if port == default_port else f"{shown}:{port}",
            prefix=quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"),
            credentials=_basic(user) if user else None,
            tls=_verifying_context() if parts.scheme == "https" else None,
            socket_path=socket_path,
            names=NameLookup(host, port),
        )

    def connect(self, call: UpstreamCall, seconds: float) -> socket.socket:
        """Return a connected socket, from the first address that accepts; the call can end the waiting.

        ``seconds``: how long the name, an address, and the TLS handshake after it may take, each of them. Raises
        ConnectionFailure, and OSError where the two sides do not agree on TLS.
        """
        failure: OSError | None = None
        for family, address in self._addresses(call, seconds):
            try:
                connected = _connect(family, address, call, seconds)
            except OSError as error:
                failure = error
                continue
            return connected if self.tls is None else self._secure(connected, self.tls, call, seconds)
        self.names.forget()
        raise NotConnected(f"{self.authority} accepts no connection") from failure

    def _addresses(self, call: UpstreamCall, seconds: float) -> Addresses:
        """Return where a socket may be connected to. Raises HostNotFound and NotConnected."""
        if self.socket_path is not None:
            return [(_unix_family(), self.socket_path)]
        return self.names.addresses(call, seconds)

    def _secure(
        self, connected: socket.socket, tls: ssl.SSLContext, call: UpstreamCall, seconds: float
    ) -> socket.socket:
        """Return the socket after a TLS handshake, which must prove the host's name. Raises OSError and Silence."""
        secured = connected
        try:
            secured = tls.wrap_socket(connected, server_hostname=self.host, do_handshake_on_connect=False)
            call.attach(secured)
            _shake_hands(secured, seconds)
        except BaseException:
            close_socket(secured, call)
            raise
        return secured


def _unix_family() -> int:
    if sys.platform == "win32":
        raise NotConnected("Windows has no Unix sockets that Python can use")
    return socket.AF_UNIX


def _basic(credentials: str) -> str:
    """Return the header of the user and the password that stand in a URL (RFC 7617)."""
    user, _, password = credentials.partition(":")
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def _verifying_context() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _connect(family: int, address: Any, call: UpstreamCall, seconds: float) -> socket.socket:
    """Return a socket that is connected to one address. Raises OSError, of which TimeoutError is one."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        call.attach(connection)
        if isinstance(address, str):
            _connect_unix(connection, address, seconds)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _connect_internet(connection, address, seconds)
    except BaseException:
        close_socket(connection, call)
        raise
    return connection


def _connect_internet(connection: socket.socket, address: Any, seconds: float) -> None:
    try:
        connection.connect(address)
    except BlockingIOError:
        if not waiting.writable(connection, seconds):
            raise TimeoutError("no connection in time") from None
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None


def _connect_unix(connection: socket.socket, path: str, seconds: float) -> None:
    """Connect at once, or as soon as the queue of the listener has room."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.connect(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError("no connection in time") from None
            waiting.sleep(_QUEUE_SECONDS)
        else:
            return


def _shake_hands(secured: ssl.SSLSocket, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            secured.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
            if not wait_as_wanted(secured, wanted, deadline - time.monotonic()):
                raise Silence("the TLS handshake does not end") from None
        else:
            return


def wait_as_wanted(connection: socket.socket, wanted: OSError, seconds: float) -> bool:
    """Wait for what a TLS connection lacks, or until a plain one can be read; return whether it came in time."""
    if isinstance(wanted, ssl.SSLWantWriteError):
        return waiting.writable(connection, seconds)
    return waiting.readable(connection, seconds)


def close_socket(connection: socket.socket, call: UpstreamCall) -> None:
    """Close a socket, which ``call`` must not shut down any more: its number may be another's then."""
    call.release()
    waiting.forget(connection)
    connection.close()
