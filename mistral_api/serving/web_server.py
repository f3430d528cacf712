"""The web server: waitress, in a thread of its own, so that the main thread can decide when to stop it.

The listening socket is bound before anything else is started. What waitress refuses before the application sees it
gets our error bodies. Stopping goes through waitress's own trigger, which runs a function in its loop: nothing is
closed while the loop uses it (waitress/trigger.py).
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from wsgiref.types import WSGIApplication

import orjson
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from mistral_api.errors import ApiError, StartError, error_headers, internal_error, refused_request
from mistral_api.settings import Settings
from mistral_api.system.addresses import claim_address
from mistral_api.system.identifiers import new_id

# More open connections than threads: idle keep-alive connections must not lock others out.
CONNECTION_LIMIT = 1000
FLUSH_SECONDS = 2.0


class _ErrorBodyTask(ErrorTask):  # type: ignore[misc] # waitress has no type hints
    """Responds with our error body to a body or headers that are too large, and to a request that is not HTTP."""

    def execute(self) -> None:
        """Write the response and close the connection: where its next request would begin is unknown."""
        error = _error_of(self.request.error.code, self.request.error.body)
        body = orjson.dumps(error.body())
        headers = error_headers(error) | {"Content-Type": "application/json", "X-Request-Id": str(new_id())}
        self.status = f"{error.status} {HTTPStatus(error.status).phrase}"
        self.response_headers += headers.items()
        self.content_length = len(body)
        self.set_close_on_finish()
        self.write(body)


def _error_of(status: int, reason: str) -> ApiError:
    """Return the error for a status of waitress.

    Its 501, an unknown transfer encoding, is the client's fault: the client must not try again.
    """
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error()
    return refused_request(status if status < 500 else 400, reason)


class Channel(HTTPChannel):  # type: ignore[misc] # waitress has no type hints
    """One connection of a client."""

    error_task_class = _ErrorBodyTask


class WebServer:
    """Waitress and the thread of its loop, from :meth:`start` to :meth:`close`."""

    def __init__(self, app: WSGIApplication, listener: socket.socket, settings: Settings) -> None:
        self._server = create_server(
            app,
            sockets=[listener],
            threads=settings.api_threads,
            connection_limit=CONNECTION_LIMIT,
            # Lets the application see that a client has left while its request is processed.
            channel_request_lookahead=1,
            max_request_body_size=settings.max_request_bytes + (1 << 20),
            asyncore_use_poll=hasattr(wasyncore.select, "poll"),
            # A proxy on this machine must be recognisable: security looks for its headers.
            clear_untrusted_proxy_headers=False,
            ident=None,
        )
        self._server.channel_class = Channel
        self._thread = threading.Thread(target=self._server.run, name="waitress", daemon=True)

    def start(self) -> None:
        """Begin to serve requests."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the loop still runs."""
        return self._thread.is_alive()

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections stay open."""

        def close_listener() -> None:
            self._server.del_channel()
            self._server.socket.close()

        self._run_in_loop(close_listener)

    def close(self) -> None:
        """Let the threads end, send the rest of every response, and close every connection."""
        self._server.task_dispatcher.shutdown()
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._has_unsent() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._run_in_loop(lambda: wasyncore.close_all(self._server._map))
        self._thread.join(timeout=5)

    def _has_unsent(self) -> bool:
        return any(channel.total_outbufs_len for channel in list(self._server.active_channels.values()))

    def _run_in_loop(self, function: Callable[[], None]) -> None:
        if not self.running:
            return
        try:
            self._server.trigger.pull_trigger(function)
        except OSError as error:
            # Another call had the loop run our function, which closed the trigger, before this call could pull it.
            if error.errno != errno.EBADF:
                raise


def bind_listener(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet. Raises StartError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"API_HOST: '{host}' is not an address of this machine: {error.strerror}.") from error
    try:
        claim_address(listener)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartError(
            f"API_PORT: cannot listen on {host}:{port}: {error.strerror}. "
            "Stop the program that uses it, or choose another port with --port."
        ) from error
    return listener
