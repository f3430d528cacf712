"""The supervisor's side of the status file: every change of state is legal, logged and written."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from typing import Any

from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import ModelServerStatus, Restart, State, require_legal, status_file, write_status
from mistral_api.model_files.served_model import served_model_names
from mistral_api.supervisor.memory_ladder import MemoryStep, requested_step
from mistral_api.supervisor.preflight import PreflightResult
from mistral_api.supervisor.process import log_file
from mistral_api.system.processes import ProcessIdentity, identity_of
from mistral_api.system.service_manager import ServiceManager

log = logging.getLogger(__name__)

LAST_RESTARTS, SHOWN_LINES = 20, 20
# What the service manager is asked for: saving caches and ending the server are bounded well below it.
STOP_SECONDS = 60.0


class StatusReporter:
    """The one place that knows, and tells, the state of one model server."""

    def __init__(self, served: ServerSpec, manager: ServiceManager | None = None) -> None:
        """``manager``: the service manager that started us, to be told as well."""
        settings = served.settings
        self._server = served.server
        self._manager = manager or ServiceManager()
        own = identity_of(os.getpid())
        names = served_model_names(settings)
        self._data_dir = settings.data_dir
        self._written = True
        self._asked = requested_step(settings)
        self._status = ModelServerStatus(
            state=State.STOPPED,
            since=time.time(),
            supervisor_pid=own.pid,
            supervisor_started=own.started,
            engine="unknown",
            model=names[0] if names else "",
            model_path=str(settings.model_path or ""),
            url=settings.model_server_base_url,
            gpu_layers=settings.gpu_layers,
            context_size=settings.context_size,
            batch_size=settings.batch_size,
            threads=settings.threads,
            parallel=settings.parallel,
            log_path=str(log_file(settings.data_dir, served.server)),
        )

    @property
    def state(self) -> State:
        """The state now."""
        return self._status.state

    @property
    def restarts(self) -> int:
        """Restarts since the supervisor started."""
        return self._status.restarts

    def begin(self) -> None:
        """Replace what an earlier supervisor left: its ``fatal`` is not ours."""
        self._write()

    def enter(self, state: State, **changes: Any) -> None:
        """Go to a state. Raises IllegalTransition for one that may not follow."""
        require_legal(self._status.state, state)
        self._status = dataclasses.replace(self._status, state=state, since=time.time(), **changes)
        self._write()
        self._tell_manager()

    def checked(self, checked: PreflightResult) -> None:
        """Note what is going to be run."""
        engine, model = checked.engine, checked.model
        self._note(
            engine=engine.name,
            engine_version=engine.version,
            model_path=str(model.path),
            architecture=model.architecture,
            parameters=model.parameters,
            quantization=model.quantization,
            model_context=model.context,
        )

    def fit(self, fit: MemoryStep) -> None:
        """Note the settings that are tried now."""
        self._note(
            gpu_layers=fit.gpu_layers,
            context_size=fit.context_size,
            cache_type=fit.cache_type,
            memory_step=None if fit == self._asked else f"{fit} (asked for: {self._asked})",
        )

    def restarting(self, reason: str, lines: list[str]) -> None:
        """Go to ``backoff`` after an end, and note why; ``lines``: the server's last ones."""
        restart = Restart(time.time(), reason)
        self.enter(
            State.BACKOFF,
            last_error=reason,
            last_lines=lines[-SHOWN_LINES:],
            last_restarts=[*self._status.last_restarts, restart][-LAST_RESTARTS:],
        )

    def fatal(self, reason: str, lines: list[str]) -> None:
        """Go to ``fatal``; ``lines``: the server's last ones, if it ran at all."""
        self.enter(State.FATAL, last_error=reason, last_lines=lines[-SHOWN_LINES:])

    def restarted(self) -> None:
        """Count a restart, once it is made."""
        self._note(restarts=self._status.restarts + 1)

    def process(self, identity: ProcessIdentity | None) -> None:
        """Note the server's process, or that there is none."""
        self._note(pid=identity.pid if identity else None, pid_started=identity.started if identity else None)

    def _note(self, **changes: Any) -> None:
        """Change what is known without changing the state."""
        self._status = dataclasses.replace(self._status, **changes)
        self._write()

    def _tell_manager(self) -> None:
        """Ready means that this loop turns: the watchdog begins then, and a model may take long to be loaded."""
        if self.state is State.STARTING:
            self._manager.notify_ready()
        elif self.state is State.STOPPING:
            self._manager.notify_stopping()
            self._manager.extend_timeout(STOP_SECONDS)
        said = f": {self._status.last_error}" if self.state in (State.BACKOFF, State.FATAL) else ""
        self._manager.notify_status(f"{self._status.model} {self.state}{said}")

    def catch_up(self) -> None:
        """Write what a disk without space did not take."""
        if not self._written:
            self._write()

    def _write(self) -> None:
        """A disk that is full must not end the model server. No status at all is better then than an old one."""
        try:
            write_status(self._data_dir, self._status, self._server)
        except OSError as error:
            if self._written:
                log.warning("the status file cannot be written: %s", error)
            self._written = False
            with contextlib.suppress(OSError):
                status_file(self._data_dir, self._server).unlink(missing_ok=True)
        else:
            self._written = True
