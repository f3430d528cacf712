"""Cancelling an upstream request from another thread, while its own thread is blocked waiting for bytes.

An :class:`UpstreamCall` is one request to the model server. The pooled connection that the request is sent on gives
the call its socket. Cancelling shuts the socket down: the blocked read returns at once, and the model server, which
sees its client leave, frees the slot. :class:`DisconnectWatcher` is the one thread that asks, for all calls in flight,
whether their client is still there.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from mistral_api.system.addresses import connect_unix

# How often the clients are checked: an abandoned request keeps its slot no longer than this.
WATCH_INTERVAL_SECONDS = 0.1
# llama.cpp (cpp-httplib) and uvicorn close a connection that has been idle for 5 s. A connection that has been idle for
# longer than this is not used again, so that no request meets the closing.
MAX_IDLE_SECONDS = 3.0

_current = threading.local()


def _do_nothing() -> None:
    """Ask nothing before a retry."""


class UpstreamCall:
    """One request to the model server; ``reason`` says why it was cancelled, if it was."""

    def __init__(self, client_gone: Callable[[], bool] | None = None) -> None:
        self._client_gone = client_gone
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.reason: str | None = None
        # Called before the request is sent to another process of the model server. What it raises ends the request.
        self.before_retry: Callable[[], None] = _do_nothing

    @property
    def cancelled(self) -> bool:
        """Whether the call has been told to end."""
        return self.reason is not None

    def client_is_gone(self) -> bool:
        """Whether the client has closed its connection, as far as the HTTP server can tell."""
        return self._client_gone is not None and self._client_gone()

    def attach(self, connection: socket.socket) -> None:
        """Take the socket that the call now uses; one that comes too late is shut down at once."""
        with self._lock:
            self._socket = connection
            if self.cancelled:
                _shut_down(connection)

    def cancel(self, reason: str) -> None:
        """End the call. ``reason``: ``"client"`` when the client left, ``"shutdown"`` when this server stops."""
        with self._lock:
            if self.cancelled:
                return
            self.reason = reason
            if self._socket is not None:
                _shut_down(self._socket)

    def release(self) -> None:
        """Release the socket: it goes back to the pool, and must not be shut down there."""
        with self._lock:
            self._socket = None

    def __enter__(self) -> UpstreamCall:
        _current.call = self
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _current.call = None


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer has closed it already
        connection.shutdown(socket.SHUT_RDWR)


def current_call() -> UpstreamCall | None:
    """Return the call that this thread is sending, if any; connections ask for it."""
    call: UpstreamCall | None = getattr(_current, "call", None)
    return call


class DisconnectWatcher:
    """Owns the calls in flight, and the thread that cancels those whose client has left."""

    def __init__(self) -> None:
        self._calls: set[UpstreamCall] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, call: UpstreamCall) -> None:
        """Watch a call until :meth:`remove`; the thread starts with the first one."""
        with self._changed:
            self._calls.add(call)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._watch, name="disconnect-watcher", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def remove(self, call: UpstreamCall) -> None:
        """Stop watching a call that has ended."""
        call.release()
        with self._changed:
            self._calls.discard(call)
            self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no call is in flight, for at most ``seconds``. Return whether none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._calls, timeout=seconds)

    def cancel_all(self, reason: str) -> None:
        """Cancel every call in flight."""
        with self._changed:
            calls = list(self._calls)
        for call in calls:
            call.cancel(reason)

    def close(self) -> None:
        """Cancel all calls and end the thread."""
        self.cancel_all("shutdown")
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._calls or self._closed)
                if self._closed:
                    return
                calls = list(self._calls)
            for call in calls:
                if call.client_is_gone():
                    call.cancel("client")
            with self._changed:
                self._changed.wait_for(lambda: self._closed, timeout=WATCH_INTERVAL_SECONDS)


class _CallConnection(HTTPConnection):
    """A connection that gives its socket to the current call, and that is not reused after a long idle time."""

    _call: UpstreamCall | None = None
    _last_used = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether it may be used again: it is connected, and has not been idle for too long."""
        idle = time.monotonic() - self._last_used
        return idle < MAX_IDLE_SECONDS and super().is_connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send the request. From here on the call can shut the socket down."""
        super().request(*args, **kwargs)
        self._call = current_call()
        if self._call is not None and self.sock is not None:
            self._call.attach(self.sock)

    def became_idle(self) -> None:
        """Forget the call before the pool gives the connection to another one."""
        if self._call is not None:
            self._call.release()
            self._call = None
        self._last_used = time.monotonic()


class _CallHTTPSConnection(_CallConnection, HTTPSConnection):
    """The same over TLS."""


class _UnixConnection(_CallConnection):
    """The same over a Unix socket, whose path is the attribute ``path`` of a class made for it."""

    path = ""

    def _new_conn(self) -> socket.socket:
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else None
        try:
            return connect_unix(self.path, timeout)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self.path} does not accept connections") from error
        except OSError as error:
            raise NewConnectionError(self, f"{self.path}: {error}") from error


class _CallPool(HTTPConnectionPool):
    ConnectionCls = _CallConnection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.became_idle()
        super()._put_conn(conn)


class _CallHTTPSPool(_CallPool, HTTPSConnectionPool):
    ConnectionCls = _CallHTTPSConnection


class _CallAdapter(HTTPAdapter):
    """Makes pools of our connections. It never retries: a generation is not idempotent."""

    def __init__(self, pool_size: int, socket_path: str | None) -> None:
        self._socket_path = socket_path
        super().__init__(pool_connections=1, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        plain = _CallPool if self._socket_path is None else _unix_pool(self._socket_path)
        self.poolmanager.pool_classes_by_scheme = {"http": plain, "https": _CallHTTPSPool}


def _unix_pool(socket_path: str) -> type[_CallPool]:
    """Return the class of a pool whose connections go to a Unix socket, whatever host a URL names."""
    connection = type("_UnixConnectionToServer", (_UnixConnection,), {"path": socket_path})
    return type("_UnixPoolToServer", (_CallPool,), {"ConnectionCls": connection})


def model_server_session(pool_size: int, socket_path: str | None = None) -> requests.Session:
    """Return a session for the model server. It pools as many connections, and ignores proxies of the environment.

    ``socket_path``: the Unix socket that every request without TLS goes to.
    """
    session = requests.Session()
    session.trust_env = False
    adapter = _CallAdapter(pool_size, socket_path)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"Content-Type": "application/json", "Accept-Encoding": "identity"})
    return session
