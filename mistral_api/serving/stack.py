"""The parts of the server in the order they start, database, schema, supervisor, web server, and their stop in reverse.

Signal handlers only put their signal into a queue; the main thread decides.
"""

from __future__ import annotations

import logging
import queue
import socket
import time

from flask import Flask

from mistral_api.application import create_app, prepare_database
from mistral_api.errors import StartError
from mistral_api.services import services_of
from mistral_api.serving.first_key import ensure_first_key_when_prepared
from mistral_api.serving.hooks import Hooks
from mistral_api.serving.supervisor_process import SupervisorProcess
from mistral_api.serving.web_server import WebServer
from mistral_api.settings import Settings
from mistral_api.system.processes import handle_stop_signals
from mistral_api.system.service_manager import ServiceManager

log = logging.getLogger(__name__)

# The longest wait of the main thread without a look around (Windows delivers Ctrl-C only between waits).
POLL_SECONDS = 0.5
# How long a service manager is asked to wait: for the migrations of the schema, and, beyond SHUTDOWN_SECONDS, for the
# supervisor, the recorder and the database to end.
MIGRATION_TIMEOUT_SECONDS = 1800.0
STOP_SECONDS = 120.0


class Stack:
    """Every part of the server, from :meth:`start` to :meth:`stop`. A stack that started in part can be stopped too."""

    def __init__(
        self,
        settings: Settings,
        stop_requests: StopRequests,
        manager: ServiceManager,
        supervisor: SupervisorProcess | None,
    ) -> None:
        """``supervisor`` is None where somebody else runs it: then the API serves without waiting for a model."""
        self._settings = settings
        self._stop_requests = stop_requests
        self._manager = manager
        self._app: Flask | None = None
        self._web_server: WebServer | None = None
        self._supervisor = supervisor

    def start(self, listener: socket.socket) -> None:
        """Start every part; the model may still be loading afterwards. Raises StartError."""
        self._app = create_app(self._settings)
        self._manager.extend_timeout(MIGRATION_TIMEOUT_SECONDS)
        prepare_database(self._app)
        ensure_first_key_when_prepared(self._settings, services_of(self._app.extensions))
        services_of(self._app.extensions).start()
        if self._supervisor is not None:
            self._supervisor.start()
        services = services_of(self._app.extensions)
        hooks = Hooks(
            services.gate.refusal,
            services.gate.is_shared_address,
            services.note_refusal,
            services.audit_log.note_closed,
        )
        self._web_server = WebServer(self._app, listener, self._settings, hooks)
        self._web_server.start()
        self._manager.notify_ready()

    @property
    def needs_key(self) -> bool:
        """Whether callers need an API key."""
        if self._app is None:
            return False
        services = services_of(self._app.extensions)
        return services.key_ring.any_key and not services.gate.is_unconfirmed

    def wait_until_ready(self) -> bool:
        """Wait for the model; return False when asked to stop before. Raises StartError when it cannot be served."""
        while self._supervisor is not None and not self._supervisor.is_ready():
            self._manager.feed_watchdog()
            if self._stop_requests.wait(0.05):
                return False
        return True

    def serve(self) -> None:
        """Serve until asked to stop. Raises StartError if the web server ends."""
        while not self._stop_requests.wait():
            self._manager.feed_watchdog()
            if self._supervisor is not None:
                self._supervisor.restart_if_ended()
            if self._web_server is None or not self._web_server.running:
                raise StartError("The web server stopped by itself; its log has the reason.")

    def stop(self) -> None:
        """Stop the streams first, then the supervisor and its model server, then the recorder and the database."""
        self._manager.notify_stopping()
        self._manager.extend_timeout(self._settings.shutdown_seconds + STOP_SECONDS)
        if self._web_server is not None and self._app is not None:
            response_service = services_of(self._app.extensions).response_service
            self._web_server.stop_accepting()
            response_service.close_queue()
            self._wait_for_requests()
            # A client that streams a background response gets its end before the connection closes.
            response_service.close()
            self._web_server.close()
        self._flush_feedback()
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._app is not None:
            services_of(self._app.extensions).close()

    def _flush_feedback(self) -> None:
        """Tell the supervisor which conversations were continued just now: it saves their caches."""
        feedback = services_of(self._app.extensions).model_servers.main.feedback if self._app else None
        if feedback is not None:
            feedback.flush()

    def _wait_for_requests(self) -> None:
        """Let requests finish, for SHUTDOWN_SECONDS at most. A second request to stop ends the wait."""
        watcher = services_of(self._app.extensions).model_servers.watcher if self._app else None
        deadline = time.monotonic() + self._settings.shutdown_seconds
        while watcher is not None and not watcher.wait_until_idle(0.1):
            self._manager.feed_watchdog()
            if time.monotonic() >= deadline or self._stop_requests.wait(0.01):
                log.warning("running requests are ended: they did not finish in time")
                watcher.cancel_all("shutdown")
                watcher.wait_until_idle(2.0)
                return


class StopRequests:
    """The stop signals received so far. Construct it in the main thread."""

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[int] = queue.SimpleQueue()
        handle_stop_signals(self._received.put)

    def wait(self, seconds: float = POLL_SECONDS) -> bool:
        """Wait for the next request to stop; return False when none came in time."""
        try:
            self._received.get(timeout=seconds)
        except queue.Empty:
            return False
        return True
