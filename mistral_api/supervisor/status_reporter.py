"""The supervisor's side of the status file: every change of state is checked, written, and told the service manager."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mistral_api.control.attention import attention_line, idle_card_attention
from mistral_api.control.placement import Placement
from mistral_api.control.rpc_workers import RpcWorker
from mistral_api.control.server_spec import MAIN_SERVER, ServerSpec
from mistral_api.control.shared_cache import is_shared
from mistral_api.control.status import (
    ModelServerStatus,
    Restart,
    RestartReason,
    State,
    require_legal_transition,
    status_file,
    write_status,
)
from mistral_api.model_files.served_model import served_model_names
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.idle_cards import IdleCardSearch
from mistral_api.supervisor.memory_fallback import MemoryStep, requested_step
from mistral_api.supervisor.owner_separation import has_prompt_cache, prompt_cache_size
from mistral_api.supervisor.preflight import PreflightResult
from mistral_api.supervisor.process import output_log_path
from mistral_api.system.processes import ProcessIdentity, identity_of
from mistral_api.system.service_manager import ServiceManager

log = logging.getLogger(__name__)

MAX_SHOWN_RESTARTS, MAX_SHOWN_LINES = 20, 20
# The time to stop that the service manager is asked for. Saving caches and ending the server take much less.
SERVICE_STOP_SECONDS = 60.0


def _address_of(settings: Settings) -> str:
    """Return where the model server listens, in the words of llama.cpp: a URL, or the path of a socket."""
    socket_path = settings.model_server_socket
    return settings.model_server_base_url if socket_path is None else f"unix://{socket_path}"


class StatusReporter:
    """The one owner of the state of a model server."""

    def __init__(self, spec: ServerSpec, manager: ServiceManager | None = None) -> None:
        """``manager``: the service manager that started us, which is told every state as well."""
        settings = spec.settings
        self._server_name = spec.name
        self._manager = manager or ServiceManager()
        own = identity_of(os.getpid())
        names = served_model_names(settings)
        self._data_dir = settings.data_dir
        self._is_written = True
        self._engine: Engine | None = None
        # The first server is the one to have the card.
        self._idle_cards = IdleCardSearch(settings, spec.environment()) if spec.name == MAIN_SERVER else None
        self._idle_cards_logged = False
        self._step = self._requested_step = requested_step(settings)
        self._status = ModelServerStatus(
            state=State.STOPPED,
            since=time.time(),
            supervisor_pid=own.pid,
            supervisor_started=own.started,
            engine="unknown",
            model=names[0] if names else "",
            model_path=str(settings.model_path or ""),
            url=_address_of(settings),
            gpu_layers=settings.gpu_layers,
            context_size=settings.context_size,
            batch_size=settings.batch_size,
            threads=settings.threads,
            parallel=settings.parallel,
            log_path=str(output_log_path(settings.data_dir, spec.name)),
        )

    @property
    def state(self) -> State:
        """The state now."""
        return self._status.state

    @property
    def restarts(self) -> int:
        """The number of restarts since the supervisor started."""
        return self._status.restarts

    def write_first_status(self) -> None:
        """Replace the status of an earlier supervisor, since its ``fatal`` is not ours."""
        self._write()

    def enter(self, state: State, **changes: Any) -> None:
        """Enter a state, and change other fields with it. Raises IllegalTransition for a state that may not follow."""
        require_legal_transition(self._status.state, state)
        self._status = dataclasses.replace(self._status, state=state, since=time.time(), **changes)
        self._write()
        self._tell_manager()

    def enter_backoff(self, reason: str, lines: list[str]) -> None:
        """Enter ``backoff`` after a run has ended. ``lines``: the server's last output."""
        restart = Restart(time.time(), reason)
        self.enter(
            State.BACKOFF,
            last_error=reason,
            last_lines=lines[-MAX_SHOWN_LINES:],
            last_restarts=[*self._status.last_restarts, restart][-MAX_SHOWN_RESTARTS:],
        )

    def enter_fatal(self, reason: str, lines: list[str]) -> None:
        """Enter ``fatal``. ``lines``: the server's last output, if it ran at all."""
        self.enter(State.FATAL, last_error=reason, last_lines=lines[-MAX_SHOWN_LINES:])

    def set_preflight(self, preflight: PreflightResult) -> None:
        """Set the engine and the model that are going to run."""
        engine, model = preflight.engine, preflight.model
        self._engine = engine
        self._change(
            engine=engine.name,
            engine_version=engine.version,
            model_path=str(model.path),
            architecture=model.architecture,
            parameters=model.parameters,
            quantization=model.quantization,
            model_context=model.context,
            has_chat_template=preflight.has_chat_template,
        )

    def set_placement(self, placement: Placement) -> None:
        """Set what the server has said of its model, and begin to look for cards that do not compute."""
        self._change(placement=placement)
        if self._idle_cards is not None and self._engine is not None:
            self._idle_cards.begin(self._engine, self._step, placement)

    def report_idle_cards(self) -> None:
        """Set the cards that could compute and do not, once they are found. The log says so the first time."""
        cards = None if self._idle_cards is None else self._idle_cards.take()
        if cards is None:
            return
        self._change(idle_cards=cards.names, idle_reason=cards.obstacle)
        if not self._idle_cards_logged:
            self._idle_cards_logged = True
            log.warning("%s", attention_line(idle_card_attention(self._status)))

    def set_fingerprint(self, fingerprint: str) -> None:
        """Set what responses say of the engine, the model and their settings."""
        self._change(system_fingerprint=fingerprint)

    def set_memory_step(self, step: MemoryStep) -> None:
        """Set the memory step that is tried now."""
        self._step = step
        self._change(
            gpu_layers=step.gpu_layers,
            context_size=step.context_size,
            cache_type=step.cache_type,
            memory_step=None if step == self._requested_step else f"{step} (asked for: {self._requested_step})",
        )

    def set_process(self, identity: ProcessIdentity | None, environment: Mapping[str, str] | None = None) -> None:
        """Set the server's process and what its environment says of its caches, or that there is no process."""
        caches: dict[str, Any] = {"prompt_cache": True, "prompt_cache_mib": None}
        if environment is not None:
            caches = {
                "prompt_cache": has_prompt_cache(environment),
                "prompt_cache_mib": prompt_cache_size(environment),
                "shared_cache": is_shared(environment),
            }
        self._change(
            pid=identity.pid if identity else None,
            pid_started=identity.started if identity else None,
            **caches,
            placement=None,
            idle_cards=[],
            idle_reason=None,
            restored_slots={},
        )

    def set_rpc_workers(self, workers: Sequence[RpcWorker]) -> None:
        """Set what is known of the machines that compute with the server."""
        self._change(rpc_workers=[worker.fields() for worker in workers])

    def wait_for_worker(self, problem: str) -> None:
        """Enter ``backoff``, or stay there, until a worker can be used."""
        if self.state is State.BACKOFF:
            self._change(last_error=problem)
        else:
            self.enter_backoff(problem, [])

    def count_restart(self, reason: RestartReason) -> None:
        """Count a restart that is about to be made."""
        reasons = self._status.restart_reasons
        counted = reasons | {reason.value: reasons.get(reason.value, 0) + 1}
        self._change(restarts=self._status.restarts + 1, restart_reasons=counted)

    def retry_write(self) -> None:
        """Write the status if a full disk refused it before."""
        if not self._is_written:
            self._write()

    def _change(self, **changes: Any) -> None:
        """Change fields without changing the state."""
        self._status = dataclasses.replace(self._status, **changes)
        self._write()

    def _tell_manager(self) -> None:
        """Tell the service manager the state.

        For it we are ready as soon as our loop runs: its watchdog begins then, and a model may take long to load.
        """
        if self.state is State.STARTING:
            self._manager.notify_ready()
        elif self.state is State.STOPPING:
            self._manager.notify_stopping()
            self._manager.extend_timeout(SERVICE_STOP_SECONDS)
        reason = f": {self._status.last_error}" if self.state in (State.BACKOFF, State.FATAL) else ""
        self._manager.notify_status(f"{self._status.model} {self.state}{reason}")

    def _write(self) -> None:
        """Write the status file. A full disk must not end the model server.

        Where it cannot be written it is removed: no status is better than an old one.
        """
        try:
            write_status(self._data_dir, self._status, self._server_name)
        except OSError as error:
            if self._is_written:
                log.warning("the status file cannot be written: %s", error)
            self._is_written = False
            with contextlib.suppress(OSError):
                status_file(self._data_dir, self._server_name).unlink(missing_ok=True)
        else:
            self._is_written = True
