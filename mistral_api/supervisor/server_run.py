"""One life of the model server's process: loading, ready, and why it ended. Every outcome is watched for."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import State
from mistral_api.hardware.processor_time import COMPUTING_FACTOR, ProcessorTime
from mistral_api.supervisor.events import Events
from mistral_api.supervisor.hang_detection import HangDetector, HealthResult, Probe, SlotActivity
from mistral_api.supervisor.memory_ladder import count_oom_kills, killed_for_memory
from mistral_api.supervisor.process import HUNG_STOP_SECONDS, STOP_SECONDS, OutputLog, ServerProcess
from mistral_api.supervisor.status_reporter import StatusReporter

log = logging.getLogger(__name__)

LOADING_PROBE_SECONDS = 0.05
READY_PROBE_SECONDS = 1.0
# A server that keeps talking is loading still, up to so many times LOAD_SECONDS.
LONGEST_LOAD_FACTOR = 10
# So long without an answer, and not computing, is worth a word; llama.cpp answers between two batches only.
UNRESPONSIVE_SECONDS = 10.0


class RunEndReason(Enum):
    """How a life ended: we were asked to stop, the process ended by itself, or it was ended because it hung."""

    STOPPED = "stopped"
    EXITED = "exited"
    LOAD_OVERDUE = "load overdue"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class RunResult:
    """``ready_seconds``: how long it had been ready and got on, None where it never was ready;
    ``killed_for_memory``: whether it was the kernel that killed it, for want of memory."""

    end_reason: RunEndReason
    exit_code: int | None
    ready_seconds: float | None
    problem: str
    killed_for_memory: bool = False

    @property
    def was_killed(self) -> bool:
        """Whether the process was killed from outside (SIGKILL), which says nothing of what it would have done."""
        return self.end_reason is RunEndReason.EXITED and self.exit_code == -9


class RunHooks(Protocol):
    """What else is to be done in the life of a server, by whoever started it."""

    @property
    def saving(self) -> bool:
        """Whether the server writes caches for us: it answers late meanwhile."""

    def became_ready(self) -> None:
        """It has loaded its model, and nobody has been told yet."""

    def while_ready(self) -> str | None:
        """A turn of the loop; answers why the server is to be ended, if it is."""

    def before_stop(self) -> None:
        """It works and is about to be ended because we stop."""


class ServerRun:
    """Owns a started process until it has ended; :meth:`run` does not return before."""

    def __init__(
        self, served: ServerSpec, process: ServerProcess, output: OutputLog, reporter: StatusReporter, events: Events
    ) -> None:
        self._settings = served.settings
        self._label = served.label
        self._process = process
        self._output = output
        self._reporter = reporter
        self._events = events
        self._probe = Probe(served.settings)
        self._began = time.monotonic()
        self._ready_at: float | None = None
        self._last_sign_at = self._began
        self._oom_kills = count_oom_kills()

    def run(self, attendant: RunHooks) -> RunResult:
        """Watch the process until it has ended, or is to be, and end it."""
        how, problem = RunEndReason.STOPPED, ""
        try:
            how, problem = self._watch(attendant)
        finally:
            self._end(how, attendant)
        exit_code = self._process.exit_code
        if how is RunEndReason.EXITED:
            problem = f"the {self._label} ended with {_in_words(exit_code)}"
        ready = max(0.0, self._last_sign_at - self._ready_at) if self._ready_at is not None else None
        by_kernel = how is RunEndReason.EXITED and killed_for_memory(exit_code, self._oom_kills)
        return RunResult(how, exit_code, ready, problem, by_kernel)

    def _watch(self, attendant: RunHooks) -> tuple[RunEndReason, str]:
        problem = self._until_ready()
        if problem is not None:
            return RunEndReason.LOAD_OVERDUE, problem
        if self._running():
            self._became_ready(attendant)
            problem = self._while_ready(attendant)
        if problem is not None:
            return RunEndReason.HUNG, f"the {self._label} hung: {problem}"
        return (RunEndReason.STOPPED if self._events.stop_requested else RunEndReason.EXITED), ""

    def _running(self) -> bool:
        return self._process.exit_code is None and not self._events.stop_requested

    def _until_ready(self) -> str | None:
        """Wait for the model; answers what is wrong where it takes too long."""
        while self._running():
            if self._probe.check_health() is HealthResult.READY:
                return None
            if self._overdue():
                return f"the model was not loaded after {time.monotonic() - self._began:.0f} s"
            self._events.wait(LOADING_PROBE_SECONDS)
        return None

    def _overdue(self) -> bool:
        """LOAD_SECONDS after its last sign of progress, which is whatever it prints."""
        now, limit = time.monotonic(), self._settings.load_seconds
        return now - self._output.last_output_at > limit or now - self._began > limit * LONGEST_LOAD_FACTOR

    def _became_ready(self, attendant: RunHooks) -> None:
        self._ready_at = self._last_sign_at = time.monotonic()
        attendant.became_ready()
        self._reporter.enter(State.READY)
        pid = self._process.identity.pid
        log.info("%s ready after %.1f s (pid %d)", self._label, self._ready_at - self._began, pid)

    def _while_ready(self, attendant: RunHooks) -> str | None:
        """Until the process ends or is to end; answers why it is hung, if it is."""
        progress = HangDetector(self._settings.hang_seconds)
        processor = ProcessorTime(self._process.identity.pid, self._settings.threads)
        while self._running():
            self._oom_kills = count_oom_kills()
            next_at = time.monotonic() + READY_PROBE_SECONDS
            work = self._probe.read_activity()
            progress.observe(work)
            self._last_sign_at = progress.last_progress_at
            factor = _patience_factor(work, processor, attendant)
            failing = attendant.while_ready()
            problem = progress.hang_reason(factor=factor) or (failing if not progress.is_advancing else None)
            if problem is not None and self._running():
                return problem
            self._note(progress, computing=factor > 1)
            self._reporter.retry_write()
            self._events.wait(next_at - time.monotonic())
        return None

    def _note(self, progress: HangDetector, *, computing: bool) -> None:
        """Say when a server that was ready answers no more, and when it does again."""
        silent = progress.unanswered_seconds > UNRESPONSIVE_SECONDS and not computing
        if silent and self._reporter.state is State.READY:
            self._reporter.enter(State.UNRESPONSIVE)
            log.warning("the %s has not answered for %.0f s", self._label, progress.unanswered_seconds)
        elif self._reporter.state is State.UNRESPONSIVE and progress.unanswered_seconds < READY_PROBE_SECONDS:
            self._reporter.enter(State.READY)
            log.info("the %s answers again", self._label)

    def _end(self, how: RunEndReason, attendant: RunHooks) -> None:
        """End the process where it has not ended by itself; one that hangs is not given long."""
        if self._events.stop_requested:
            self._reporter.enter(State.STOPPING)
            if how is RunEndReason.STOPPED and self._ready_at is not None:
                attendant.before_stop()
        self._process.stop(HUNG_STOP_SECONDS if how in (RunEndReason.HUNG, RunEndReason.LOAD_OVERDUE) else STOP_SECONDS)
        self._reporter.set_process(None)


def _patience_factor(work: SlotActivity | None, processor: ProcessorTime, attendant: RunHooks) -> float:
    """How much longer than HANG_SECONDS it may show no progress: while it computes a batch or writes caches."""
    if attendant.saving:
        return COMPUTING_FACTOR
    return 1.0 if work is not None and not work.busy_slots else processor.hang_seconds_factor()


def _in_words(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"
