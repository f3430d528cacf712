"""Waitress: socket, thread, connections.

waitress's connections, with our error bodies for what it refuses before the application sees it.

waitress in a thread of its own, so that the main thread can decide when to stop it.

Stopping goes through waitress's own trigger, which runs a function inside its loop: nothing is
closed under its feet (waitress/trigger.py).

The API's listening socket, taken before anything else is started.
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


class _OurErrorTask(ErrorTask):  # type: ignore[misc] # waitress has no type hints
    """Answers a body or headers too large, or a request that is no HTTP, in the one shape."""

    def execute(self) -> None:
        """Write the answer and close the connection: where its next request would begin is unknown."""
        failure = _failure(self.request.error.code, self.request.error.body)
        body = orjson.dumps(failure.body())
        headers = error_headers(failure) | {"Content-Type": "application/json", "X-Request-Id": str(new_id())}
        self.status = f"{failure.status} {HTTPStatus(failure.status).phrase}"
        self.response_headers += headers.items()
        self.content_length = len(body)
        self.set_close_on_finish()
        self.write(body)


def _failure(status: int, reason: str) -> ApiError:
    """waitress's 501, an unknown transfer encoding, is the client's fault: it must not be tried again."""
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error()
    return refused_request(status if status < 500 else 400, reason)


class Channel(HTTPChannel):  # type: ignore[misc] # waitress has no type hints
    """One connection."""

    error_task_class = _OurErrorTask


# More open connections than threads: idle keep-alive connections must not lock others out.
CONNECTION_LIMIT = 1000
FLUSH_SECONDS = 2.0


class WebServer:
    """Owns waitress's loop thread from :meth:`start` to :meth:`close`."""

    def __init__(self, app: WSGIApplication, listener: socket.socket, settings: Settings) -> None:
        self._server = create_server(
            app,
            sockets=[listener],
            threads=settings.api_threads,
            connection_limit=CONNECTION_LIMIT,
            # Lets the application see that a client has left while its request is being worked on.
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
        """Begin to answer."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the loop is alive."""
        return self._thread.is_alive()

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections go on."""

        def close_listener() -> None:
            self._server.del_channel()
            self._server.socket.close()

        self._in_loop(close_listener)

    def close(self) -> None:
        """Let the threads end, send what is still to be sent, close every connection."""
        self._server.task_dispatcher.shutdown()
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._unsent() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._in_loop(lambda: wasyncore.close_all(self._server._map))
        self._thread.join(timeout=5)

    def _unsent(self) -> bool:
        return any(channel.total_outbufs_len for channel in list(self._server.active_channels.values()))

    def _in_loop(self, thunk: Callable[[], None]) -> None:
        if not self.running:
            return
        try:
            self._server.trigger.pull_trigger(thunk)
        except OSError as error:
            # Somebody else's pull had the loop run the thunk, which closed the trigger, before ours.
            if error.errno != errno.EBADF:
                raise


def bind_listener(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises StartError with one sentence."""
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
