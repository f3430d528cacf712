"""Keep-alive connections to the model server, each of which knows the call it is working for."""

from __future__ import annotations

import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from mistral_api.inference.cancellation import UpstreamCall, current_call

# llama.cpp (cpp-httplib) and uvicorn close a connection after 5 s of idleness. One that has idled
# for longer than this is not used again, so that no request meets the server's closing.
MAX_IDLE_SECONDS = 3.0


class _CallConnection(HTTPConnection):
    """A connection that hands its socket to the current call and retires early when idle."""

    _call: UpstreamCall | None = None
    _last_used = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether it may be used again: connected, and not idle for too long."""
        idle = time.monotonic() - self._last_used
        return idle < MAX_IDLE_SECONDS and super().is_connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send the request; from here on the call can shut the socket down."""
        super().request(*args, **kwargs)
        self._call = current_call()
        if self._call is not None and self.sock is not None:
            self._call.attach(self.sock)

    def became_idle(self) -> None:
        """Forget the call before the pool hands the connection to another one."""
        if self._call is not None:
            self._call.finished()
            self._call = None
        self._last_used = time.monotonic()


class _CallHTTPSConnection(_CallConnection, HTTPSConnection):
    """The same over TLS."""


class _CallPool(HTTPConnectionPool):
    ConnectionCls = _CallConnection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.became_idle()
        super()._put_conn(conn)


class _CallHTTPSPool(_CallPool, HTTPSConnectionPool):
    ConnectionCls = _CallHTTPSConnection


class _CallAdapter(HTTPAdapter):
    """Makes the pools out of our connections; never retries: a generation is not idempotent."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _CallPool, "https": _CallHTTPSPool}


def model_server_session(pool_size: int) -> requests.Session:
    """A session for the model server: as many connections as requests, no proxies of the environment."""
    session = requests.Session()
    session.trust_env = False
    adapter = _CallAdapter(pool_connections=1, pool_maxsize=pool_size, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"Content-Type": "application/json", "Accept-Encoding": "identity"})
    return session
