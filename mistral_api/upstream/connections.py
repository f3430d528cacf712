"""The pooled connections to one model server, by urllib3.

``requests``, which rests on urllib3, took 0.27 ms more for each request, of 1.4 in all: it makes a session's settings,
a prepared request and a response of its own around each of urllib3's. Nothing of that is needed here, nor are cookies.
"""

from __future__ import annotations

import socket
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import certifi
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util import Timeout, Url, parse_url

from mistral_api.system.addresses import connect_unix
from mistral_api.upstream.cancellation import UpstreamCall, current_call
from mistral_api.version import VERSION

# llama.cpp (cpp-httplib) and uvicorn close a connection that has been idle for 5 s. A connection that has been idle for
# longer than this is not used again, so that no request meets the closing.
MAX_IDLE_SECONDS = 3.0

_HEADERS = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"mistral-local-api/{VERSION}",
}


class ModelServerConnections:
    """The connections to one model server. Safe to use from many threads. Proxies of the environment are ignored."""

    def __init__(self, base_url: str, size: int, socket_path: str | None = None) -> None:
        """``size``: how many connections are kept. ``socket_path``: the Unix socket that is connected to instead."""
        url = parse_url(base_url)
        self._prefix = (url.path or "").rstrip("/")
        # A user and a password in the URL count more than a key.
        self._credentials = {} if url.auth is None else {"Authorization": _basic(url.auth)}
        self._pool = _pool(url, size, socket_path)

    def open(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], deadlines: tuple[float, float]
    ) -> BaseHTTPResponse:
        """Send a request, once, and return its response when it begins; nothing of its body has been read then.

        ``deadlines``: for connecting, and for each silence. The response has to be closed. Raises urllib3's exceptions.
        """
        connect, read = deadlines
        return self._pool.urlopen(
            method,
            self._prefix + path,
            body=body,
            headers={**_HEADERS, **headers, **self._credentials},
            timeout=Timeout(connect=connect, read=read),
            retries=False,  # a generation is not idempotent
            redirect=False,
            preload_content=False,
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


def _basic(credentials: str) -> str:
    """Return the header of the user and the password that stand in a URL (RFC 7617)."""
    user, _, password = credentials.partition(":")
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def close_response(response: BaseHTTPResponse) -> None:
    """End a request. Its connection can be used again where its body has been read to the end, else it is closed."""
    response.close()
    response.release_conn()


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
    """The same over a Unix socket, whatever host a URL names."""

    def __init__(self, *args: Any, socket_path: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._socket_path = socket_path

    def _new_conn(self) -> socket.socket:
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else None
        try:
            return connect_unix(self._socket_path, timeout)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self._socket_path} does not accept connections") from error
        except OSError as error:
            raise NewConnectionError(self, f"{self._socket_path}: {error}") from error


class _CallPool(HTTPConnectionPool):
    ConnectionCls: type[_CallConnection] = _CallConnection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.became_idle()
        super()._put_conn(conn)


class _UnixPool(_CallPool):
    """The pool hands the keyword ``socket_path`` on to its connections, as urllib3 does with what it does not know."""

    ConnectionCls = _UnixConnection


class _CallHTTPSPool(_CallPool, HTTPSConnectionPool):
    ConnectionCls = _CallHTTPSConnection


def _pool(url: Url, size: int, socket_path: str | None) -> HTTPConnectionPool:
    host = url.host or ""
    if url.scheme == "https":
        return _CallHTTPSPool(host, url.port, maxsize=size, cert_reqs="CERT_REQUIRED", ca_certs=certifi.where())
    if socket_path is not None:
        return _UnixPool(host, url.port, maxsize=size, socket_path=socket_path)
    return _CallPool(host, url.port, maxsize=size)
