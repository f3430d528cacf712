"""The loop that keeps a model server running: check, start, watch, and restart it or give up.

:class:`Supervisor` decides what follows a run. ``server_run`` watches one run, and ``hang_detection`` decides whether
the server hangs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from mistral_api.control.engine_switches import own_names, switches_in_effect
from mistral_api.control.feedback import FeedbackReader
from mistral_api.control.server_environment import KEY_VARIABLE
from mistral_api.control.server_key import make_server_key
from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import BUNDLED, ModelServerStatus, RestartReason, State, read_status_file
from mistral_api.engine_builds.build_store import CPU, Build, packaged_version
from mistral_api.engine_builds.devices import build_environment
from mistral_api.errors import StartError
from mistral_api.supervisor.engine import Engine, bundled_engine, server_command, system_fingerprint
from mistral_api.supervisor.events import MAX_WAIT_SECONDS, Events, StopRequested
from mistral_api.supervisor.lifecycle_hooks import LifecycleHooks
from mistral_api.supervisor.load_report import VERBOSITY_VARIABLE, verbosity_of
from mistral_api.supervisor.memory_fit import MemoryFitter
from mistral_api.supervisor.owner_separation import describe_prompt_cache, separated_environment
from mistral_api.supervisor.preflight import (
    PreflightResult,
    needed_bytes,
    remove_stale_socket,
    require_memory,
    run_preflight,
)
from mistral_api.supervisor.process import OutputLog, ServerProcess, output_log_path, stop_leftover_server
from mistral_api.supervisor.rpc_workers import RpcWorkers, left_workers, names_lost_worker, require_usable_workers
from mistral_api.supervisor.server_run import RunEndReason, RunResult, ServerRun
from mistral_api.supervisor.slot_cache import open_slot_caches
from mistral_api.supervisor.status_reporter import StatusReporter
from mistral_api.system.backoff import Backoff
from mistral_api.system.command_names import installed_command

log = logging.getLogger(__name__)

# A server that was never ready and has ended so often while loading will never be ready.
MAX_FAILED_LOADS = 2


class TooManyRestarts(RuntimeError):
    """The model server has crashed too often and is given up. The message says how often, and the last reason."""


class _BuildUnusable(Exception):
    """The build of the bundled engine for a card does not work here any more; the message says what went wrong."""


# Waits until it is decided which build of the bundled engine is started, and calls the function when that takes time.
ChooseBuild: TypeAlias = Callable[[Events, Callable[[], None]], None]


class Supervisor:
    """Owns one model server, from :meth:`run` to its return."""

    def __init__(
        self,
        spec: ServerSpec,
        events: Events,
        reporter: StatusReporter,
        *,
        retry_gpu: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        """``retry_gpu``: try the requested memory settings again, although only lower ones fitted last time."""
        self._may_start: Callable[[], bool] = lambda: True
        self._choose_build: ChooseBuild = lambda _events, _on_wait: None
        self._spec = spec
        self._data_dir = spec.settings.data_dir
        self._events = events
        self._retry_gpu = retry_gpu
        self._reporter = reporter
        self._backoff = backoff or Backoff(spec.settings.max_restarts)
        self._was_ready = False
        self._failed_loads = 0
        self._workers = RpcWorkers.none(spec)
        self._feedback_reader = FeedbackReader(self._data_dir, spec.name)

    def delay_start_until(self, may_start: Callable[[], bool]) -> None:
        """Have the first start wait until ``may_start`` returns true, so that another server gets its memory first."""
        self._may_start = may_start

    def choose_build_by(self, choose: ChooseBuild) -> None:
        """Have ``choose`` decide, before the first start, which build of the bundled engine is started."""
        self._choose_build = choose

    def run(self) -> None:
        """Keep a model server running until a stop is requested. Raises StartError or TooManyRestarts."""
        try:
            preflight, output = self._prepare()
        except StopRequested:
            if self._reporter.state is State.STARTING:
                self._stop_without_server()
            return
        except StartError as error:
            raise self._enter_fatal(error) from None
        except OSError as error:
            sentence = f"DATA_DIR: '{self._data_dir}' cannot be used: {error}."
            raise self._enter_fatal(StartError(sentence)) from error
        self._reporter.set_preflight(preflight)
        memory_fitter = MemoryFitter(self._spec, preflight, start_over=self._retry_gpu)
        while not (self._may_start() or self._events.stop_requested):
            self._events.wait(MAX_WAIT_SECONDS)
        try:
            while not self._events.stop_requested:
                try:
                    self._run_once(preflight, memory_fitter, output)
                except _BuildUnusable as error:
                    preflight = self._use_cpu_build(preflight, str(error), output)
                    memory_fitter = MemoryFitter(self._spec, preflight, start_over=self._retry_gpu)
        finally:
            output.close()

    def _prepare(self) -> tuple[PreflightResult, OutputLog]:
        """Return what the checks have found, and the log of the server's output. Raises StartError, StopRequested."""
        stop_leftover_server(self._data_dir, self._spec.name)
        left = read_status_file(self._data_dir, self._spec.name)
        self._reporter.write_first_status()
        self._choose_build(self._events, lambda: self._reporter.enter(State.STARTING))
        if self._events.stop_requested:
            raise StopRequested
        preflight = run_preflight(self._spec, self._events.poll_stop)
        self._workers = self._open_workers(preflight.engine, left)
        return preflight, OutputLog(
            output_log_path(self._data_dir, self._spec.name), self._spec.settings.log_file_bytes
        )

    def _run_once(self, preflight: PreflightResult, memory_fitter: MemoryFitter, output: OutputLog) -> None:
        """Run the server once, from its start to its end, and wait before the next start.

        Raises StartError or TooManyRestarts where there is to be no next start.
        """
        self._reporter.set_memory_step(memory_fitter.step)
        if self._reporter.state is not State.STARTING:  # it is while a build of the engine was chosen
            self._reporter.enter(State.STARTING)
        if not self._wait_for_workers(preflight):
            return
        folder = preflight.engine.build_folder
        if folder is not None and not folder.is_dir():
            raise _BuildUnusable(f"'{folder}' is gone")
        command = server_command(self._spec, preflight.engine, preflight.model.path, memory_fitter.step)
        with open_slot_caches(self._spec, command, preflight.engine) as caches:
            self._reporter.set_fingerprint(system_fingerprint(preflight.engine, caches.fingerprint))
            process = self._start([*command, *caches.flags()], preflight, output)
            hooks = LifecycleHooks(memory_fitter, self._feedback_reader, caches, self._events.poll_stop, self._data_dir)
            hooks.watch_workers(self._workers, process.identity.pid, self._reporter)
            result = ServerRun(self._spec, process, hooks, self._reporter, self._events).run()
            self._workers.disconnected(self._reporter)
            if result.end_reason is not RunEndReason.STOPPED:
                caches.discard_if_ended_early(result.healthy_seconds or 0.0)
        if result.end_reason is RunEndReason.STOPPED:
            self._enter_stopped()
        elif self._step_down(memory_fitter, result, output):
            reason = f"{result.problem} for want of memory; next try: {memory_fitter.step}"
            self._wait_for_restart(RestartReason.MEMORY, reason, output, 0.0)
        else:
            self._back_off(result, preflight, output)

    def _open_workers(self, engine: Engine, left: ModelServerStatus | None) -> RpcWorkers:
        """Return the workers that the server is to use. ``left``: the status that an earlier supervisor has left."""
        workers = RpcWorkers(self._spec, engine, require_usable_workers(self._spec, engine), left_workers(left))
        workers.warn_of_exposure()
        return workers

    def _wait_for_workers(self, preflight: PreflightResult) -> bool:
        """Wait until all workers can be used. Return whether the server is to be started; else it is stopped."""
        try:
            self._workers.wait_until_ready(self._reporter, self._events)
            if self._workers and not self._events.stop_requested:
                require_memory(self._spec, preflight.engine, preflight.model, of_workers=self._workers.offered_bytes)
        except StopRequested:
            pass
        except StartError as error:
            raise self._enter_fatal(error) from None
        if self._events.stop_requested:
            self._stop_without_server()
        return not self._events.stop_requested

    def _start(self, command: list[str], preflight: PreflightResult, output: OutputLog) -> ServerProcess:
        engine, needed = preflight.engine, needed_bytes(self._spec, preflight.model)
        try:
            key = make_server_key(self._spec.settings, self._spec.name)
            remove_stale_socket(self._spec.settings)
            environment = separated_environment(self._spec.settings, self._spec.environment(), needed)
            environment |= {KEY_VARIABLE: key}
            environment = build_environment(engine.build_folder, environment)
            chosen = VERBOSITY_VARIABLE in environment
            environment = verbosity_of(engine.name, engine.version, environment) | environment
            process = ServerProcess(command, output, self._events.queue, environment, keeps_traces=chosen)
        except OSError as error:
            raise self._enter_fatal(StartError(f"The model server cannot be started: {error}.")) from error
        self._reporter.set_process(process.identity, environment)
        self._reporter.enter(State.LOADING)
        log.info("%s started (pid %d); %s", self._spec.label, process.identity.pid, describe_prompt_cache(environment))
        return process

    def _step_down(self, memory_fitter: MemoryFitter, result: RunResult, output: OutputLog) -> bool:
        """Take a lower memory step where memory was short. Return whether there is a lower step to try."""
        shortage = result.memory_shortage(output.lines(), uses_device=memory_fitter.step.uses_device)
        if shortage is None:
            return False
        try:
            return memory_fitter.step_down(shortage, was_ready=result.was_ready)
        except StartError as error:
            raise self._enter_fatal(error, output) from None

    def _back_off(self, result: RunResult, preflight: PreflightResult, output: OutputLog) -> None:
        """Wait before the next start. Raises StartError or TooManyRestarts where there is to be none.

        With a build for a card, whose driver may be at fault, _BuildUnusable instead.
        """
        problem = result.problem
        if result.was_ready:
            self._was_ready, self._failed_loads = True, 0
        else:
            problem += f" while it was loading: {output.failure_summary()}"
            self._require_loadable(result, preflight, problem, output)
        if result.blamed_constraints:
            # Not the server's fault, and it will not happen again with these.
            problem += f"; {result.blamed_constraints} constraints quarantined"
            self._wait_for_restart(RestartReason.CONSTRAINT, problem, output, 0.0)
            return
        delay = self._backoff.next_delay(result.healthy_seconds or 0.0)
        lost_worker = names_lost_worker(output.lines())
        if lost_worker:
            problem += "; a worker was lost"
        if delay is None:
            _leave_card(preflight, f"{problem} (restart {self._reporter.restarts})")
        if delay is None and (result.end_reason is RunEndReason.HUNG or lost_worker):
            self._retry_slowly(problem, output)
            return
        if delay is None:
            sentence = f"Given up after {self._reporter.restarts} restarts: {problem.rstrip('.')}."
            raise self._enter_fatal(TooManyRestarts(sentence), output)
        self._wait_for_restart(_restart_reason(result), problem, output, delay)

    def _retry_slowly(self, problem: str, output: OutputLog) -> None:
        """Give the server up for some minutes, each time for longer: requests make it hang, and requests change."""
        delay = self._backoff.next_slow_delay()
        sentence = f"Given up for {delay / 60:.0f} minutes after {self._reporter.restarts} restarts: {problem}."
        log.error("%s", sentence)
        self._reporter.enter_fatal(sentence, output.lines())
        self._events.sleep(delay)
        self._restart_unless_stopped(RestartReason.HANG)

    def _require_loadable(self, result: RunResult, preflight: PreflightResult, problem: str, output: OutputLog) -> None:
        """Raise StartError for a model that has never been loaded and has failed too often.

        With a build for a card it may be that build's fault: then raise _BuildUnusable.
        """
        if result.could_not_start and preflight.engine.name == BUNDLED:
            _leave_card(preflight, problem)
            raise self._enter_fatal(StartError(own_names(_engine_sentence(output), self._spec.variable_prefix)), output)
        self._failed_loads += not (result.was_killed or names_lost_worker(output.lines()))
        if not self._was_ready and self._failed_loads >= MAX_FAILED_LOADS:
            _leave_card(preflight, problem)
            model = f"{self._spec.path_setting}: '{preflight.model.path}'"
            switches = " and ".join(switches_in_effect(os.environ, self._spec.variable_prefix, preflight.engine.name))
            sentence = f"{model} cannot be loaded{switches and f' with {switches}'}: {problem.rstrip('.')}."
            raise self._enter_fatal(StartError(sentence), output)

    def _use_cpu_build(self, preflight: PreflightResult, problem: str, output: OutputLog) -> PreflightResult:
        """Go on with the CPU's build of the bundled engine, which is always there."""
        log.error(
            "the engine's build for the card, %s, cannot serve here, so the CPU's does: %s. After a change of the "
            "driver start the server again; `%s` chooses another build (auto, cuda, vulkan, cpu)",
            preflight.engine.version,
            problem.rstrip("."),
            installed_command("mistral-api engine install KIND"),
        )
        self._was_ready, self._failed_loads = False, 0
        self._backoff.start_over()
        self._reporter.enter_backoff(problem, output.lines())
        self._restart_unless_stopped(RestartReason.LOAD)
        on_cpu = replace(preflight, engine=bundled_engine(Build(CPU, packaged_version())))
        self._reporter.set_preflight(on_cpu)
        return on_cpu

    def _wait_for_restart(self, reason: RestartReason, problem: str, output: OutputLog, delay: float) -> None:
        log.warning("%s; starting it again in %.1f s", problem, delay)
        self._reporter.enter_backoff(problem, output.lines())
        self._events.sleep(delay)
        self._restart_unless_stopped(reason)

    def _restart_unless_stopped(self, reason: RestartReason) -> None:
        if self._events.stop_requested:
            self._stop_without_server()
        else:
            self._reporter.count_restart(reason)

    def _stop_without_server(self) -> None:
        """End in order where no server runs."""
        self._reporter.enter(State.STOPPING)
        self._enter_stopped()

    def _enter_stopped(self) -> None:
        self._reporter.enter(State.STOPPED)
        log.info("%s stopped", self._spec.label)

    def _enter_fatal(
        self, error: StartError | TooManyRestarts, output: OutputLog | None = None
    ) -> StartError | TooManyRestarts:
        """Enter ``fatal``, and return the error for the caller to raise."""
        self._reporter.enter_fatal(str(error), output.lines() if output else [])
        return error


def _leave_card(preflight: PreflightResult, problem: str) -> None:
    """Raise _BuildUnusable where a build for a card is in use: the CPU's is tried before anything is given up."""
    if preflight.engine.build_folder is not None:
        raise _BuildUnusable(problem)


def _restart_reason(result: RunResult) -> RestartReason:
    """Return why a server is started again that neither lacked memory nor had a costly constraint."""
    if result.end_reason is RunEndReason.HUNG:
        return RestartReason.HANG
    return RestartReason.CRASH if result.was_ready else RestartReason.LOAD


def _engine_sentence(output: OutputLog) -> str:
    """Return what the bundled engine printed when it ended before it looked at a model."""
    return f"The bundled engine cannot start: {output.failure_summary().removeprefix('error: ').rstrip('.')}."
