"""The loop that keeps the model server running: check, start, watch, and start it again or give up."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mistral_api.control.feedback import FeedbackReader
from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import State
from mistral_api.errors import StartError
from mistral_api.supervisor.backoff import Backoff, StopRequested, TooManyRestarts
from mistral_api.supervisor.engine import server_command
from mistral_api.supervisor.events import MAX_WAIT_SECONDS, Events
from mistral_api.supervisor.lifecycle_hooks import LifecycleHooks
from mistral_api.supervisor.memory_fit import MemoryFitter
from mistral_api.supervisor.preflight import PreflightResult, run_preflight
from mistral_api.supervisor.process import OutputLog, ServerProcess, output_log_path, stop_leftover_server
from mistral_api.supervisor.server_run import RunEndReason, RunResult, ServerRun
from mistral_api.supervisor.slot_cache import open_slot_caches
from mistral_api.supervisor.status_reporter import StatusReporter

log = logging.getLogger(__name__)

# A server that ends while loading, this often and without ever having been ready, will never be.
FAILED_LOADS = 2


class Supervisor:
    """Owns one model server."""

    def __init__(
        self,
        served: ServerSpec,
        events: Events,
        reporter: StatusReporter,
        *,
        retry_gpu: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        """``retry_gpu``: try what was asked for again, although less was what fitted last time."""
        self._may_start: Callable[[], bool] = lambda: True
        self._served = served
        self._data_dir = served.settings.data_dir
        self._events = events
        self._retry_gpu = retry_gpu
        self._reporter = reporter
        self._backoff = backoff or Backoff(served.settings.max_restarts)
        self._was_ready = False
        self._failed_loads = 0
        self._reports = FeedbackReader(self._data_dir, served.name)

    def delay_start_until(self, may_start: Callable[[], bool]) -> None:
        """Have the first start wait until this is true: another server is to have the first choice of the memory."""
        self._may_start = may_start

    def run(self) -> None:
        """Keep a model server running until asked to stop. Raises StartError or GivenUp."""
        try:
            stop_leftover_server(self._data_dir, self._served.name)
            self._reporter.write_first_status()
            checked = run_preflight(self._served, self._asked_to_stop)
            output = OutputLog(output_log_path(self._data_dir, self._served.name))
        except StopRequested:
            return
        except StartError as error:
            raise self._fatal(error) from None
        except OSError as error:
            sentence = f"DATA_DIR: '{self._data_dir}' cannot be used: {error}."
            raise self._fatal(StartError(sentence)) from error
        self._reporter.set_preflight(checked)
        fitting = MemoryFitter(self._served, checked, start_over=self._retry_gpu)
        while not (self._may_start() or self._events.stop_requested):
            self._events.wait(MAX_WAIT_SECONDS)
        try:
            while not self._events.stop_requested:
                self._live_once(checked, fitting, output)
        finally:
            output.close()

    def _asked_to_stop(self) -> bool:
        self._events.wait(0.0)
        return self._events.stop_requested

    def _live_once(self, checked: PreflightResult, fitting: MemoryFitter, output: OutputLog) -> None:
        """One life of the server: from its start to its end, and the wait before the next."""
        self._reporter.set_memory_step(fitting.step)
        self._reporter.enter(State.STARTING)
        command = server_command(self._served, checked.engine, checked.model.path, fitting.step)
        with open_slot_caches(self._served, command, checked.engine) as caches:
            process = self._start([*command, *caches.flags()], output)
            attendance = LifecycleHooks(fitting, self._reports, caches, self._asked_to_stop)
            ending = ServerRun(self._served, process, output, self._reporter, self._events).run(attendance)
            if ending.end_reason is not RunEndReason.STOPPED:
                caches.distrust_restored(ending.ready_seconds or 0.0)
        if ending.end_reason is RunEndReason.STOPPED:
            self._stopped()
        elif self._step_down(fitting, ending, output):
            self._go_on(f"{ending.problem} for want of memory; next try: {fitting.step}", output, 0.0)
        else:
            self._after(ending, checked, output)

    def _step_down(self, fitting: MemoryFitter, ending: RunResult, output: OutputLog) -> bool:
        try:
            return fitting.step_down(ending, output.lines())
        except StartError as error:
            raise self._fatal(error, output) from None

    def _start(self, command: list[str], output: OutputLog) -> ServerProcess:
        try:
            process = ServerProcess(command, output, self._events.queue, self._served.environment())
        except OSError as error:
            raise self._fatal(StartError(f"The model server cannot be started: {error}.")) from error
        self._reporter.set_process(process.identity)
        self._reporter.enter(State.LOADING)
        log.info("%s started (pid %d)", self._served.label, process.identity.pid)
        return process

    def _after(self, ending: RunResult, checked: PreflightResult, output: OutputLog) -> None:
        """Wait before the next start. Raises StartError or GivenUp when there is to be none."""
        problem = ending.problem
        if ending.ready_seconds is None:
            problem += f" while it was loading: {output.failure_summary()}"
            self._require_loadable(ending, checked, problem, output)
        else:
            self._was_ready, self._failed_loads = True, 0
        delay = self._backoff.next_delay(ending.ready_seconds or 0.0)
        if delay is None:
            sentence = f"Given up after {self._reporter.restarts} restarts: {problem.rstrip('.')}."
            raise self._fatal(TooManyRestarts(sentence), output)
        self._go_on(problem, output, delay)

    def _require_loadable(self, ending: RunResult, checked: PreflightResult, problem: str, output: OutputLog) -> None:
        """Raises StartError for a model that has never been loaded and has failed too often."""
        self._failed_loads += not ending.was_killed
        if not self._was_ready and self._failed_loads >= FAILED_LOADS:
            sentence = f"{self._served.path_setting}: '{checked.model.path}' cannot be loaded: {problem.rstrip('.')}."
            raise self._fatal(StartError(sentence), output)

    def _go_on(self, reason: str, output: OutputLog, delay: float) -> None:
        log.warning("%s; starting it again in %.1f s", reason, delay)
        self._reporter.enter_backoff(reason, output.lines())
        self._events.sleep(delay)
        if self._events.stop_requested:
            self._reporter.enter(State.STOPPING)
            self._stopped()
        else:
            self._reporter.count_restart()

    def _stopped(self) -> None:
        self._reporter.enter(State.STOPPED)
        log.info("%s stopped", self._served.label)

    def _fatal(
        self, error: StartError | TooManyRestarts, output: OutputLog | None = None
    ) -> StartError | TooManyRestarts:
        self._reporter.enter_fatal(str(error), output.lines() if output else [])
        return error
