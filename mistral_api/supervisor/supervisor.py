"""The loop that starts the model server, watches it and starts it again."""

from __future__ import annotations

import logging
import queue
import time
from pathlib import Path

from mistral_api.settings import Settings
from mistral_api.supervisor.backoff import Backoff
from mistral_api.supervisor.command import Engine, choose_engine, server_command
from mistral_api.supervisor.errors import CannotStart, GivenUp
from mistral_api.supervisor.model import require_model
from mistral_api.supervisor.output import OutputLog, log_file
from mistral_api.supervisor.probe import Answer, probe, require_free_port
from mistral_api.supervisor.process import ServerProcess, stop_leftover
from mistral_api.supervisor.reporter import Reporter
from mistral_api.supervisor.states import State
from mistral_api.supervisor.status import read_recorded

log = logging.getLogger(__name__)

LOADING_PROBE_SECONDS = 0.05
READY_PROBE_SECONDS = 1.0
LOAD_SECONDS = 1800.0
# A server that ends while loading, this often and without ever having been ready, will never be.
FAILED_LOADS = 2


class Supervisor:
    """Owns the model server. Events ("stop", "exited") come in through one queue; one loop decides."""

    def __init__(self, settings: Settings, events: queue.SimpleQueue[str]) -> None:
        self._settings = settings
        self._events = events
        self._reporter = Reporter(settings)
        self._backoff = Backoff(settings.max_restarts)
        self._was_ready = False
        self._failed_loads = 0
        self._stopping = False

    def run(self) -> None:
        """Keep a model server running until asked to stop. Raises CannotStart or GivenUp."""
        try:
            self._stop_leftover()
            engine, model = self._prepare()
            output = OutputLog(log_file(self._settings.data_dir))
        except CannotStart as error:
            self._reporter.enter(State.FATAL, last_error=str(error))
            raise
        except OSError as error:
            raise CannotStart(f"DATA_DIR: the log cannot be written: {error}.") from error
        self._reporter.note(engine=engine.name, engine_version=engine.version, model_path=str(model))
        command = server_command(self._settings, engine, model)
        try:
            while not self._stopping:
                self._run_once(command, output)
        finally:
            output.close()

    def _stop_leftover(self) -> None:
        recorded = read_recorded(self._settings.data_dir)
        if recorded is not None and recorded.server is not None and stop_leftover(recorded.server):
            log.warning("stopped a model server (pid %d) that an earlier supervisor had left", recorded.server.pid)

    def _prepare(self) -> tuple[Engine, Path]:
        """What no restart would mend is found out before anything is started."""
        model = require_model(self._settings)
        engine = choose_engine(self._settings)
        require_free_port(self._settings)
        return engine, model

    def _run_once(self, command: list[str], output: OutputLog) -> None:
        """One life of the server: from its start to its end, and the wait before the next."""
        self._reporter.enter(State.STARTING)
        began = time.monotonic()
        try:
            process = ServerProcess(command, output, self._events)
        except OSError as error:
            raise self._fatal(CannotStart(f"The model server cannot be started: {error}.")) from error
        self._reporter.process(process.identity)
        self._reporter.enter(State.LOADING)
        log.info("model server started (pid %d)", process.identity.pid)
        try:
            ready_at = self._watch(process, began)
        finally:
            self._end(process)
        if not self._stopping:
            self._after_crash(process, output, ready_at)

    def _watch(self, process: ServerProcess, began: float) -> float | None:
        """Until the process ends or is to end; answers when it became ready, if it did (monotonic)."""
        ready_at: float | None = None
        while process.exit_code is None and not self._stopping:
            answer = probe(self._settings)
            if answer is Answer.READY and ready_at is None:
                ready_at = time.monotonic()
                self._became_ready(process, ready_at - began)
            elif ready_at is not None:
                self._note_answer(answer)
            elif time.monotonic() - began > LOAD_SECONDS:
                log.error("the model was not loaded after %.0f s", LOAD_SECONDS)
                break
            self._wait(READY_PROBE_SECONDS if ready_at is not None else LOADING_PROBE_SECONDS)
        return ready_at

    def _became_ready(self, process: ServerProcess, seconds: float) -> None:
        self._was_ready, self._failed_loads = True, 0
        self._reporter.enter(State.READY)
        log.info("model server ready after %.1f s (pid %d)", seconds, process.identity.pid)

    def _note_answer(self, answer: Answer) -> None:
        """Say whether a server that was ready still answers."""
        if answer is Answer.READY and self._reporter.state is State.UNRESPONSIVE:
            self._reporter.enter(State.READY)
            log.info("model server answers again")
        elif answer is not Answer.READY and self._reporter.state is State.READY:
            self._reporter.enter(State.UNRESPONSIVE)
            log.warning("model server does not answer")

    def _wait(self, seconds: float) -> None:
        """Wait for an event, at most so long."""
        try:
            self._stopping = self._events.get(timeout=seconds) == "stop" or self._stopping
        except queue.Empty:
            return

    def _end(self, process: ServerProcess) -> None:
        """End the process where it has not ended by itself."""
        if self._stopping:
            self._reporter.enter(State.STOPPING)
        process.stop()
        self._reporter.process(None)
        if self._stopping:
            self._reporter.enter(State.STOPPED)
            log.info("model server stopped")

    def _after_crash(self, process: ServerProcess, output: OutputLog, ready_at: float | None) -> None:
        """Wait before the next start. Raises CannotStart or GivenUp when there is to be none."""
        problem = f"the model server ended with {_ending(process.exit_code)}"
        if ready_at is None:
            self._failed_loads += 1
            problem += f" while it was loading: {output.last_words()}"
            if not self._was_ready and self._failed_loads >= FAILED_LOADS:
                raise self._fatal(
                    CannotStart(f"MODEL_PATH: '{self._reporter.model_path}' cannot be loaded: {problem.rstrip('.')}.")
                )
        delay = self._backoff.crashed(time.monotonic() - ready_at if ready_at is not None else 0.0)
        if delay is None:
            raise self._fatal(GivenUp(f"Given up after {self._reporter.restarts} restarts: {problem}."))
        log.warning("%s; starting it again in %.1f s", problem, delay)
        self._reporter.enter(State.BACKOFF, last_error=problem)
        self._pause(delay)
        if not self._stopping:
            self._reporter.note(restarts=self._reporter.restarts + 1)

    def _pause(self, seconds: float) -> None:
        """The wait before a restart; only a request to stop ends it early."""
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
        if self._stopping:
            self._reporter.enter(State.STOPPING)
            self._reporter.enter(State.STOPPED)

    def _fatal(self, error: CannotStart | GivenUp) -> CannotStart | GivenUp:
        self._reporter.enter(State.FATAL, last_error=str(error))
        return error


def _ending(exit_code: int | None) -> str:
    """An exit code in words."""
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"
