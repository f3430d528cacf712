"""The parts of the server in the order they start, from the database to the process that delivers; and their stop.

Signal handlers only put their signal into a queue; the main thread decides (``stop_requests``).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time

from flask import Flask

from mistral_api.application import create_app, prepare_database
from mistral_api.control.listening import refused_address
from mistral_api.errors import StartError
from mistral_api.ipc.siblings import Siblings
from mistral_api.recording.recorder import DRAIN_SECONDS
from mistral_api.services import services_of
from mistral_api.serving.announcer import Announcer, ServerOwner
from mistral_api.serving.api_processes import ApiProcesses
from mistral_api.serving.application_server import ApplicationServer
from mistral_api.serving.child_process import ChildProcess, start_python
from mistral_api.serving.first_key import ensure_first_key_when_prepared
from mistral_api.serving.readiness import Readiness
from mistral_api.serving.start_checks import require_startable
from mistral_api.serving.stop_requests import POLL_SECONDS, StartInterrupted, StopRequests
from mistral_api.serving.supervisor_process import SupervisorProcess
from mistral_api.settings import Settings
from mistral_api.system.addresses import url_of
from mistral_api.system.service_manager import ServiceManager

log = logging.getLogger(__name__)

# How often the main thread looks around while the model server starts, and for how long that may be.
START_POLL_SECONDS, START_SECONDS = 0.05, 60.0
# How long it waits at a time for the last requests, and then for other processes or a second request to stop.
IDLE_SECONDS, LOOK_SECONDS = 0.1, 0.01
# How long a service manager is asked to wait: for the migrations of the schema, and, beyond SHUTDOWN_SECONDS, for the
# other API processes, the supervisor, the recorder and the database to end.
MIGRATION_TIMEOUT_SECONDS = 1800.0
STOP_SECONDS = 150.0
DELIVERY_MODULE = "mistral_api.delivery_process"
# For what waits, and for the threads and connections of the process that delivers.
DELIVERY_SECONDS = DRAIN_SECONDS + 10.0


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
        self._server: ApplicationServer | None = None
        self._readiness: Readiness | None = None
        self._announcer: Announcer | None = None
        self._supervisor = supervisor
        # What the service manager was told of the API processes.
        self._told: str | None = None
        self._processes = ApiProcesses(settings)
        self._delivery = ChildProcess(
            "the process that delivers",
            lambda: start_python([DELIVERY_MODULE]),
            meanwhile="records wait in the journal",
        )

    def start(self, listener: socket.socket) -> None:
        """Start every part; the model may still be loading afterwards. Raises StartError.

        A request to stop ends it early: what takes long is broken off, or nothing more is started.
        """
        with contextlib.suppress(StartInterrupted):
            if self._supervisor is not None:
                port = listener.getsockname()[1]
                require_startable(self._settings, port, lambda: self._stop_requests.received)
            for start in (self._open, self._prepare_database, self._start_supervisor):
                if self._stop_requests.received:
                    return
                start()
            self._serve_on(listener)
            self._delivery.start()

    def _open(self) -> None:
        siblings = Siblings(hub=self._processes.hub)
        self._app = create_app(self._settings, delivers=False, siblings=siblings)
        services_of(self._app.extensions).server_health.processes = self._processes.health

    def _prepare_database(self) -> None:
        if self._app is None:
            return
        services = services_of(self._app.extensions)
        self._manager.extend_timeout(MIGRATION_TIMEOUT_SECONDS)
        with self._stop_requests.interrupting():
            prepare_database(self._app)
        # Not to be broken off: a key that has been made must be handed over.
        ensure_first_key_when_prepared(self._settings, services)
        services.start()

    def _start_supervisor(self) -> None:
        if self._supervisor is not None:
            self._supervisor.start()

    def _serve_on(self, listener: socket.socket) -> None:
        if self._app is None:
            return
        try:
            self._server = ApplicationServer(self._app, listener, self._settings, self._processes.shares)
        except OSError as error:  # another program that had bound the port too has begun to listen
            host, port = listener.getsockname()[:2]
            raise refused_address(host, port, error, host_setting="API_HOST", port_setting="API_PORT") from error
        self._server.start()
        self._processes.start(listener, self._server.loop)
        url = url_of(*listener.getsockname()[:2])
        self._readiness = Readiness(self._settings, services_of(self._app.extensions), url)
        self._announcer = Announcer(url, self._readiness, self._manager, self._main_server_owner())
        self._manager.notify_ready()

    def _main_server_owner(self) -> ServerOwner:
        if not self._settings.supervised:
            return "somebody"
        return "nobody" if self._supervisor is None else "us"

    def serve(self) -> None:
        """Serve until asked to stop, and say when requests are served.

        Raises StartError if the web server ends, or no model server can be started.
        """
        starting_until = time.monotonic() + START_SECONDS
        while not self._stop_requests.wait(self._poll_seconds(starting_until)):
            self._manager.feed_watchdog()
            self._announce()
            if self._supervisor is not None:
                self._supervisor.restart_if_ended()
            self._processes.restart_if_ended()
            self._tell_processes()
            self._delivery.restart_if_ended()
            if self._server is None or not self._server.running:
                raise StartError("The web server stopped by itself; its log has the reason.")

    def _poll_seconds(self, starting_until: float) -> float:
        """Return how long to wait for a request to stop: not long while a model of ours is about to be loaded."""
        announced = self._announcer is not None and self._announcer.done
        starting = self._supervisor is not None and not announced and time.monotonic() < starting_until
        return START_POLL_SECONDS if starting else POLL_SECONDS

    def _announce(self) -> None:
        """Say on the console what has changed, until the server is ready. Raises StartError if it never will be."""
        if self._announcer is None or self._announcer.done or self._app is None:
            return
        if self._supervisor is not None and self._settings.supervised:  # an embedding server alone may fail
            self._supervisor.require_alive()
        services = services_of(self._app.extensions)
        self._announcer.look(
            needs_key=services.key_ring.any_key and not services.gate.is_unconfirmed,
            servers_started=self._supervisor is None or self._supervisor.has_started(),
        )

    def _tell_processes(self) -> None:
        """Tell the service manager how many API processes serve, once requests are served and when that changes."""
        health = self._processes.health()
        if health["configured"] == 1 or self._announcer is None or not self._announcer.done:
            return
        text = f"{self._announcer.serving}, {health['running']} of {health['configured']} processes"
        if text != self._told:
            self._told = text
            self._manager.notify_status(text)

    def stop(self) -> None:
        """Stop the streams first, then the supervisor and its model server, then delivery and the database."""
        self._manager.notify_stopping()
        self._manager.extend_timeout(self._settings.shutdown_seconds + STOP_SECONDS)
        if self._readiness is not None:
            self._readiness.close()
        self._processes.ask_to_stop()
        if self._server is not None:
            self._server.begin_stop()
            self._wait_for_requests(self._server)
        # Until here the others ask this process for what all share.
        self._processes.close()
        if self._server is not None:
            self._server.close()
        self._flush_feedback()
        if self._supervisor is not None:
            self._supervisor.stop()
        self._delivery.stop(DELIVERY_SECONDS)
        if self._app is not None:
            services_of(self._app.extensions).close()

    def _flush_feedback(self) -> None:
        """Tell the supervisor which conversations were continued just now: it saves their caches."""
        feedback = services_of(self._app.extensions).model_servers.main.feedback if self._app else None
        if feedback is not None:
            feedback.flush()

    def _wait_for_requests(self, server: ApplicationServer) -> None:
        """Let the requests of all processes finish, for SHUTDOWN_SECONDS at most. A second request to stop ends the
        wait."""
        deadline = time.monotonic() + self._settings.shutdown_seconds
        while not (server.wait_until_idle(IDLE_SECONDS) and self._processes.ended):
            self._manager.feed_watchdog()
            if time.monotonic() >= deadline or self._stop_requests.wait(LOOK_SECONDS):
                log.warning("running requests are ended: they did not finish in time")
                self._processes.end_requests()
                server.end_requests()
                return
