"""The application behind the web server, in one API process: served, and stopped so that requests finish."""

from __future__ import annotations

import socket

from flask import Flask

from mistral_api.event_loop.loop import EventLoop
from mistral_api.services import services_of
from mistral_api.serving.connection_shares import ConnectionShares
from mistral_api.serving.hooks import Hooks
from mistral_api.serving.web_server import WebServer
from mistral_api.settings import Settings

# How long requests that are ended may take to say so to their clients, and to the journal.
END_SECONDS = 2.0


class ApplicationServer:
    """Serves an application from :meth:`start` to :meth:`close`. Its services are its caller's to start and close."""

    def __init__(
        self, app: Flask, listener: socket.socket, settings: Settings, shares: ConnectionShares | None = None
    ) -> None:
        """Listen. Raises OSError where the system does not let us. ``shares``: of all API processes at this socket."""
        self._services = services = services_of(app.extensions)
        hooks = Hooks(
            services.gate.refusal,
            services.gate.is_shared_address,
            services.note_refusal,
            services.audit_log.note_closed,
        )
        self._web_server = web_server = WebServer(app, listener, settings, hooks, shares)
        services.metrics.watch_threads(lambda: web_server.waiting)

    @property
    def loop(self) -> EventLoop:
        """The loop in which connections and tasks wait; it runs from :meth:`start_loop` to :meth:`close`."""
        return self._web_server.loop

    @property
    def running(self) -> bool:
        """Whether the loop still runs."""
        return self._web_server.running

    def start_loop(self) -> None:
        """Run the loop, and accept no connection yet."""
        self._web_server.start_loop()

    def start(self) -> None:
        """Begin to serve requests."""
        self._web_server.start()

    def begin_stop(self) -> None:
        """Take no more connections, and begin none of the responses in the background that wait."""
        self._web_server.stop_accepting()
        self._services.response_service.close_queue()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no request is in flight, for at most ``seconds``. Return whether none is."""
        return self._services.model_servers.wait_until_idle(seconds)

    def end_requests(self) -> None:
        """End the requests that are in flight."""
        self._services.model_servers.end_requests()
        self._services.model_servers.watcher.wait_until_idle(END_SECONDS)

    def close(self) -> None:
        """End what is left, send the rest of every response, and close every connection."""
        # A client that streams a background response gets its end before the connection closes.
        self._services.response_service.close()
        self._web_server.close()
