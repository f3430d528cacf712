"""What the supervisor does in the life of a server beside watching it: caches, reports of the API, what fitted."""

from __future__ import annotations

import time
from collections.abc import Callable

from mistral_api.control.feedback import FeedbackReader
from mistral_api.supervisor.memory_fit import MemoryFitter
from mistral_api.supervisor.slot_cache import SlotCacheManager

# So many generations in a row that failed on the server's side are no coincidence, whatever /health says.
FAILED_GENERATIONS = 3


class LifecycleHooks:
    """Attends one life of the server; see ``life.Attendant``."""

    def __init__(
        self, fitting: MemoryFitter, reports: FeedbackReader, caches: SlotCacheManager, stopping: Callable[[], bool]
    ) -> None:
        """``stopping``: whether we have been asked to stop, which ends a restore early."""
        self._stopping = stopping
        self._fitting = fitting
        self._reports = reports
        self._caches = caches
        self._ready_at = float("inf")

    @property
    def saving(self) -> bool:
        """Whether caches are being written."""
        return self._caches.is_saving

    def became_ready(self) -> None:
        """Keep the setting that fitted, and give the conversations their caches back."""
        self._ready_at = time.monotonic()
        self._fitting.remember_step()
        self._caches.restore(self._stopping)

    def while_ready(self) -> str | None:
        """Save caches when it is time; answers when generations fail one after the other."""
        reports = self._reports.read()
        self._caches.save_if_due(time.monotonic(), reports)
        failures = reports.failures_since(self._ready_at)
        if len(failures) < FAILED_GENERATIONS:
            return None
        return f"{len(failures)} generations in a row failed, the last one with: {failures[-1].text}"

    def before_stop(self) -> None:
        """Save the caches."""
        self._caches.save_all(self._reports.read)
