"""Parts in order of start and stop; the requests to stop.

Signals and other events that end the server: handlers only enqueue, the main thread decides.

The parts of the server in the order they start: database, schema, supervisor, web server.
"""

from __future__ import annotations

import logging
import queue
import signal
import socket
import sys
import time

from flask import Flask

from mistral_api.application import create_app, upgrade_database
from mistral_api.errors import StartError
from mistral_api.services import services_of
from mistral_api.serving.supervisor_process import SupervisorProcess
from mistral_api.serving.web_server import WebServer
from mistral_api.settings import Settings
from mistral_api.system.service_manager import ServiceManager

# The longest that a waiting main thread goes without looking around (Windows delivers Ctrl-C
# only between waits).
LOOK_SECONDS = 0.5


class StopRequests:
    """The stop signals received so far. Make it in the main thread."""

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[int] = queue.SimpleQueue()
        names = [signal.SIGINT, signal.SIGTERM]
        if sys.platform == "win32":
            names.append(signal.SIGBREAK)
        for name in names:
            signal.signal(name, lambda number, _frame: self._received.put(number))

    def wait(self, seconds: float = LOOK_SECONDS) -> bool:
        """Wait for the next request to stop; False when none came in time."""
        try:
            self._received.get(timeout=seconds)
        except queue.Empty:
            return False
        return True


log = logging.getLogger(__name__)

# How long a service manager is asked to wait: for the next revisions of the schema, and, beyond
# SHUTDOWN_SECONDS, for the supervisor, the record and the database to end.
MIGRATION_SECONDS = 1800.0
ENDING_SECONDS = 120.0


class Stack:
    """Owns every part from :meth:`start` to :meth:`stop`; stopping a half-started stack is fine."""

    def __init__(
        self,
        settings: Settings,
        stop_requests: StopRequests,
        manager: ServiceManager,
        supervisor: SupervisorProcess | None,
    ) -> None:
        """``supervisor``: None where somebody else runs it; the API serves whether it has a model yet or not."""
        self._settings = settings
        self._stop_requests = stop_requests
        self._manager = manager
        self._app: Flask | None = None
        self._web: WebServer | None = None
        self._supervisor = supervisor

    def start(self, listener: socket.socket) -> None:
        """Start every part; the model may still be loading afterwards. Raises StartError."""
        self._app = create_app(self._settings)
        self._manager.extend_timeout(MIGRATION_SECONDS)
        upgrade_database(self._app)
        services_of(self._app.extensions).start()
        if self._supervisor is not None:
            self._supervisor.start()
        self._web = WebServer(self._app, listener, self._settings)
        self._web.start()
        self._manager.notify_ready()

    def wait_until_ready(self) -> bool:
        """Wait for the model; False when asked to stop before. Raises StartError when it cannot come."""
        while self._supervisor is not None and not self._supervisor.require_ready():
            self._manager.feed_watchdog()
            if self._stop_requests.wait(0.05):
                return False
        return True

    def serve(self) -> None:
        """Stay until asked to stop. Raises StartError if the web server dies."""
        while not self._stop_requests.wait():
            self._manager.feed_watchdog()
            if self._supervisor is not None:
                self._supervisor.tend()
            if self._web is None or not self._web.running:
                raise StartError("The web server stopped by itself; its log has the reason.")

    def stop(self) -> None:
        """Streams first, then the record, then the model server, then the database."""
        self._manager.notify_stopping()
        self._manager.extend_timeout(self._settings.shutdown_seconds + ENDING_SECONDS)
        if self._web is not None and self._app is not None:
            responder = services_of(self._app.extensions).responder
            self._web.stop_accepting()
            responder.close_queue()
            self._let_requests_finish()
            # Who follows a response in the background sees its end before the connection closes.
            responder.close()
            self._web.close()
        self._report_last_requests()
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._app is not None:
            services_of(self._app.extensions).close()

    def _report_last_requests(self) -> None:
        """The supervisor saves the caches of conversations: it must know which were continued just now."""
        reports = services_of(self._app.extensions).reports if self._app else None
        if reports is not None:
            reports.flush()

    def _let_requests_finish(self) -> None:
        """Bounded by SHUTDOWN_SECONDS; a second request to stop ends the wait."""
        watch = services_of(self._app.extensions).model_server.watch if self._app else None
        deadline = time.monotonic() + self._settings.shutdown_seconds
        while watch is not None and not watch.wait_until_idle(0.1):
            self._manager.feed_watchdog()
            if time.monotonic() >= deadline or self._stop_requests.wait(0.01):
                log.warning("running requests are ended: they did not finish in time")
                watch.cancel_all("shutdown")
                watch.wait_until_idle(2.0)
                return
