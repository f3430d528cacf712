"""What the supervisor does during a run besides watching it: saved caches, feedback of the API, the memory step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from mistral_api.control.feedback import FeedbackReader
from mistral_api.control.quarantine import blame_constraints
from mistral_api.security.audit import CONSTRAINT_QUARANTINED, AuditLog
from mistral_api.supervisor.memory_fit import MemoryFitter
from mistral_api.supervisor.rpc_workers import RpcWorkers
from mistral_api.supervisor.slot_cache import SlotCacheManager
from mistral_api.supervisor.status_reporter import StatusReporter

log = logging.getLogger(__name__)

# So many generations in a row that failed on the server's side are no coincidence, whatever /health says.
MAX_FAILED_GENERATIONS = 3


class LifecycleHooks:
    """What :class:`ServerRun` calls at fixed points of one run."""

    def __init__(
        self,
        memory_fitter: MemoryFitter,
        feedback_reader: FeedbackReader,
        caches: SlotCacheManager,
        stop_requested: Callable[[], bool],
        data_dir: Path,
    ) -> None:
        """``stop_requested``: a request to stop ends the restoring of caches early."""
        self._data_dir = data_dir
        self._stop_requested = stop_requested
        self._memory_fitter = memory_fitter
        self._feedback_reader = feedback_reader
        self._caches = caches
        self._ready_at = float("inf")
        self._workers: RpcWorkers | None = None

    def watch_workers(self, workers: RpcWorkers, pid: int, reporter: StatusReporter) -> None:
        """Look after the machines that compute with the server, whose process is ``pid``."""
        self._workers = workers or None
        self._pid, self._reporter = pid, reporter

    @property
    def has_workers(self) -> bool:
        """Whether other machines compute with the server."""
        return self._workers is not None

    @property
    def is_saving(self) -> bool:
        """Whether the server is writing caches for us: meanwhile it answers late."""
        return self._caches.is_saving

    def on_ready(self) -> dict[int, str]:
        """Remember the memory step that worked, and restore the conversations' caches.

        Return the keys of the conversations by slot. Called when the model is loaded, before anyone is told that the
        server is ready.
        """
        self._ready_at = time.monotonic()
        self._memory_fitter.remember_step()
        if self._workers is not None:
            self._workers.connected(self._pid, self._reporter)
        self._caches.restore(self._stop_requested)
        return dict(self._caches.restored)

    def on_probe(self) -> str | None:
        """Save caches when it is time. Return why the server must be ended, if it must.

        Its generations keep failing, or a worker has gone and it does not know that yet.
        """
        if self._workers is not None and (loss := self._workers.loss()) is not None:
            return loss
        feedback = self._feedback_reader.read()
        self._caches.save_if_due(time.monotonic(), feedback)
        failures = feedback.failures_since(self._ready_at)
        if len(failures) < MAX_FAILED_GENERATIONS:
            return None
        return f"{len(failures)} generations in a row failed, the last one with: {failures[-1].text}"

    def on_hang(self, hung_since: float) -> int:
        """Have the constraints that were in use refused from now on. Return how many are blamed for the hang.

        Called before the server is ended, so that no client's next try comes before. ``hung_since``: when the server
        last made progress (monotonic).
        """
        try:
            blamed = blame_constraints(self._data_dir, self._feedback_reader.read().constraints, hung_since)
        except OSError as error:
            log.warning("the constraints that the server hung with cannot be quarantined: %s", error)
            return 0
        audit_log = AuditLog(self._data_dir)
        for digest in blamed:
            audit_log.record(CONSTRAINT_QUARANTINED, digest, by="supervisor")
        return len(blamed)

    def on_stop(self) -> None:
        """Save the caches. Called when a server that works is about to be stopped as requested."""
        self._caches.save_all(self._feedback_reader.read)
