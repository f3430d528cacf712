"""One run of a model server's process, from its start to its end: loading, ready, and why it ended.

Every way to end is watched for: a stop is requested, the process ends by itself, loading takes too long, the server
hangs. Whether it hangs is decided in ``hang_detection``; :meth:`ServerRun._watch_ready` asks there every second.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import State
from mistral_api.supervisor.events import Events
from mistral_api.supervisor.hang_detection import HangDetector, HealthResult, Probe, SlotActivity
from mistral_api.supervisor.lifecycle_hooks import LifecycleHooks
from mistral_api.supervisor.memory_shortage import MemoryShortage, count_oom_kills, find_shortage, killed_for_memory
from mistral_api.supervisor.process import HUNG_STOP_SECONDS, STOP_SECONDS, ServerProcess
from mistral_api.supervisor.processor_time import COMPUTING_FACTOR, ProcessorTime
from mistral_api.supervisor.status_reporter import StatusReporter
from mistral_api.system.exit_codes import ExitCode

log = logging.getLogger(__name__)

LOADING_PROBE_SECONDS = 0.05
READY_PROBE_SECONDS = 1.0
# A server that keeps printing is still loading, but no longer than so many times LOAD_SECONDS.
MAX_LOAD_FACTOR = 10
# A server that has not answered for so long is called unresponsive, unless it computes: llama.cpp answers only
# between two batches.
UNRESPONSIVE_SECONDS = 10.0
# Windows ends processes that crash with a code of NTSTATUS, which is known by its hexadecimal form.
LEAST_NTSTATUS = 0x80000000


class RunEndReason(Enum):
    """Why a run ended: a stop was requested, the process ended by itself, or it was ended by us for a fault."""

    STOPPED = "stopped"
    EXITED = "exited"
    LOAD_OVERDUE = "load overdue"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    ``healthy_seconds``: how long the server had been ready and making progress; None where it never was ready.
    ``problem``: what went wrong, as a sentence without its full stop; empty after a requested stop.
    ``killed_for_memory``: whether the kernel killed the process for lack of memory.
    ``blamed_constraints``: how many constraints have been quarantined because the server hung with them.
    """

    end_reason: RunEndReason
    exit_code: int | None
    healthy_seconds: float | None
    problem: str
    killed_for_memory: bool = False
    blamed_constraints: int = 0

    @property
    def was_ready(self) -> bool:
        """Whether the server was ever ready."""
        return self.healthy_seconds is not None

    @property
    def could_not_start(self) -> bool:
        """Whether the bundled engine ended because of itself, or of its command line, and not because of the model."""
        return self.end_reason is RunEndReason.EXITED and self.exit_code == ExitCode.CANNOT_START

    @property
    def was_killed(self) -> bool:
        """Whether the process was killed from outside (SIGKILL), which says nothing about the server itself."""
        return self.end_reason is RunEndReason.EXITED and self.exit_code == -9

    def memory_shortage(self, output_lines: Iterable[str], *, uses_device: bool) -> MemoryShortage | None:
        """Return which memory was too small, where that is why the process ended.

        ``output_lines``: its last output. ``uses_device``: whether a graphics card held a part of the model.
        """
        if self.killed_for_memory:
            return MemoryShortage.HOST
        if self.end_reason is not RunEndReason.EXITED or self.was_killed:
            return None
        return find_shortage(output_lines, uses_device=uses_device)


class ServerRun:
    """Owns a started process until it has ended. :meth:`run` does not return before."""

    def __init__(
        self,
        spec: ServerSpec,
        process: ServerProcess,
        hooks: LifecycleHooks,
        reporter: StatusReporter,
        events: Events,
    ) -> None:
        self._settings = spec.settings
        self._label = spec.label
        self._process = process
        self._hooks = hooks
        self._reporter = reporter
        self._events = events
        self._probe = Probe(spec.settings, spec.name, may_sleep=spec.sleep_seconds is not None)
        self._started_at = time.monotonic()
        self._ready_at: float | None = None
        self._last_progress_at = self._started_at
        self._oom_kills = count_oom_kills()
        self._blamed_constraints = 0

    def run(self) -> RunResult:
        """Watch the process until it has ended or must be ended, and end it."""
        end_reason, problem = RunEndReason.STOPPED, ""
        try:
            end_reason, problem = self._watch()
        finally:
            self._end(end_reason)
        exit_code = self._process.exit_code
        exited = end_reason is RunEndReason.EXITED
        if exited:
            problem = f"the {self._label} ended with {_describe_exit(exit_code)}"
        healthy = max(0.0, self._last_progress_at - self._ready_at) if self._ready_at is not None else None
        for_memory = exited and killed_for_memory(exit_code, self._oom_kills)
        return RunResult(end_reason, exit_code, healthy, problem, for_memory, self._blamed_constraints)

    def _watch(self) -> tuple[RunEndReason, str]:
        """Watch the process, and return why it has ended or must be ended, and the problem."""
        problem = self._watch_loading()
        if problem is not None:
            return RunEndReason.LOAD_OVERDUE, problem
        if self._is_running():
            self._enter_ready()
            problem = self._watch_ready()
        if problem is not None:
            return RunEndReason.HUNG, f"the {self._label} hung: {problem}"
        return (RunEndReason.STOPPED if self._events.stop_requested else RunEndReason.EXITED), ""

    def _is_running(self) -> bool:
        return self._process.exit_code is None and not self._events.stop_requested

    def _watch_loading(self) -> str | None:
        """Wait until the model is loaded, or the process ends. Return the problem where it takes too long."""
        while self._is_running():
            if self._probe.check_health() is HealthResult.READY:
                return None
            if self._is_load_overdue():
                return f"the model was not loaded after {time.monotonic() - self._started_at:.0f} s"
            self._events.wait(LOADING_PROBE_SECONDS)
        return None

    def _is_load_overdue(self) -> bool:
        """Loading is overdue LOAD_SECONDS after its last sign of progress, which is any output."""
        now, limit = time.monotonic(), self._settings.load_seconds
        return now - self._process.output.last_output_at > limit or now - self._started_at > limit * MAX_LOAD_FACTOR

    def _enter_ready(self) -> None:
        self._ready_at = self._last_progress_at = time.monotonic()
        placement = self._process.output.expect_requests()
        if placement.request_context_size is None:
            placement = dataclasses.replace(placement, request_context_size=self._probe.read_request_context())
        restored = self._hooks.on_ready()
        self._reporter.set_placement(placement)
        self._reporter.enter(State.READY, restored_slots={str(slot): key for slot, key in restored.items()})
        pid = self._process.identity.pid
        log.info("%s ready after %.1f s (pid %d)", self._label, self._ready_at - self._started_at, pid)
        log.info("%s computes %s", self._label, placement)

    def _watch_ready(self) -> str | None:
        """Probe the server until the process ends or must be ended. Return why it hangs, if it does.

        Generations that keep failing end it as well, unless its slots advance.
        """
        detector = HangDetector(self._settings.hang_seconds)
        processor = ProcessorTime(self._process.identity.pid, self._settings.threads)
        while self._is_running():
            self._oom_kills = count_oom_kills()
            next_probe_at = time.monotonic() + READY_PROBE_SECONDS
            activity = self._probe.read_activity()
            detector.observe(activity)
            self._last_progress_at = detector.last_progress_at
            factor = self._hang_seconds_factor(activity, processor)
            failing = self._hooks.on_probe()
            hang = detector.hang_reason(factor=factor)
            problem = hang or (failing if not detector.is_advancing else None)
            if problem is not None and self._is_running():
                # A server that only waits does so for its workers: no constraint of a request makes it.
                if hang is not None and not (self._hooks.has_workers and processor.is_idle):
                    self._blamed_constraints = self._hooks.on_hang(detector.last_progress_at)
                return problem
            self._report_silence(detector, computing=factor > 1)
            self._reporter.report_idle_cards()
            self._reporter.retry_write()
            self._events.wait(next_probe_at - time.monotonic())
        return None

    def _hang_seconds_factor(self, activity: SlotActivity | None, processor: ProcessorTime) -> float:
        """Return how many times HANG_SECONDS the server may show no progress.

        It is more than one while the server writes caches or computes a batch.
        """
        if self._hooks.is_saving:
            return COMPUTING_FACTOR
        idle = activity is not None and not activity.busy_slots
        return 1.0 if idle else processor.hang_seconds_factor()

    def _report_silence(self, detector: HangDetector, *, computing: bool) -> None:
        """Report when a ready server does not answer any more, and when it answers again."""
        silent = detector.unanswered_seconds > UNRESPONSIVE_SECONDS and not computing
        if silent and self._reporter.state is State.READY:
            self._reporter.enter(State.UNRESPONSIVE)
            log.warning("the %s has not answered for %.0f s", self._label, detector.unanswered_seconds)
        elif self._reporter.state is State.UNRESPONSIVE and detector.unanswered_seconds < READY_PROBE_SECONDS:
            self._reporter.enter(State.READY)
            log.info("the %s answers again", self._label)

    def _end(self, end_reason: RunEndReason) -> None:
        """End the process where it has not ended by itself. One that hangs gets less time for it."""
        if self._events.stop_requested:
            self._reporter.enter(State.STOPPING)
            if end_reason is RunEndReason.STOPPED and self._ready_at is not None:
                self._hooks.on_stop()
        hung = end_reason in (RunEndReason.HUNG, RunEndReason.LOAD_OVERDUE)
        self._process.stop(HUNG_STOP_SECONDS if hung else STOP_SECONDS)
        self._reporter.set_process(None)


def _describe_exit(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    if exit_code is not None and exit_code >= LEAST_NTSTATUS:
        return f"exit code 0x{exit_code:08X}"
    return f"exit code {exit_code}"
