"""Whether a server that is ready still gets on. ``/health`` answering is no proof of life: progress is."""

from __future__ import annotations

import time
from collections.abc import Callable

from mistral_api.supervisor.probe import SlotActivity


class HangDetector:
    """Fed with every probe; says when the server hangs.

    It hangs when no busy slot advances, or when it does not answer, for HANG_SECONDS. One slot that advances is
    enough: llama.cpp fills its batches slot by slot, and one long prompt may make all others wait.
    """

    def __init__(self, hang_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._hang_seconds = hang_seconds
        self._clock = clock
        self._last_work: SlotActivity | None = None
        self._advanced_at = self._answered_at = clock()

    def saw(self, work: SlotActivity | None) -> None:
        """Take in what a probe found; None: no answer."""
        now = self._clock()
        if work is None:
            return
        self._answered_at = now
        if not work.busy or work != self._last_work:
            self._advanced_at = now
        self._last_work = work

    @property
    def unanswered_seconds(self) -> float:
        """How long ago the last answer came."""
        return self._clock() - self._answered_at

    @property
    def advancing(self) -> bool:
        """Whether the last probe found busy slots that had advanced since the one before."""
        return self._last_work is not None and self._last_work.busy > 0 and self._advanced_at == self._answered_at

    @property
    def last_sign_at(self) -> float:
        """When the server was last seen to get on, or to be idle (on the clock of this watch)."""
        return min(self._advanced_at, self._answered_at)

    def hang(self, *, factor: float = 1.0) -> str | None:
        """Why the server is to be ended, or None; ``factor``: how much longer than HANG_SECONDS it may take."""
        patience = self._hang_seconds * factor
        if self.unanswered_seconds >= patience:
            return f"it has not answered for {self.unanswered_seconds:.0f} s"
        still = self._clock() - self._advanced_at
        if self._last_work is not None and self._last_work.busy and still >= patience:
            return f"none of its {self._last_work.busy} busy slots has advanced for {still:.0f} s"
        return None
