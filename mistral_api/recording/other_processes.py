"""Whether other processes serve requests too: looked at beside the event loop, by one request for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mistral_api.event_loop import waiting
from mistral_api.event_loop.waiting import Signal

# The role in the process lock (:class:`mistral_api.system.process_lock.ProcessLock`) of an API process that shares the
# memory of another one (API_PROCESSES). It ends with that one, which has no role: who sees that one has seen them all.
SIBLING = "sibling-"
# How long it is believed.
FRESH_SECONDS = 1.0
# How long a request waits for another one's look.
LOOK_SECONDS = 2.0


class OtherProcesses:
    """What the folder of locks says, as of a moment ago. Safe to use from many threads, and in tasks."""

    def __init__(self, look: Callable[[], bool]) -> None:
        """``look`` returns whether there are others, and may wait for the disk and for locks. It raises OSError."""
        self._look = look
        self._lock = threading.Lock()
        self._seen = True
        self._seen_at = float("-inf")
        # Set at the end of the look that somebody takes now.
        self._looking: Signal | None = None

    def seen(self) -> bool:
        """Return whether there are others, as of at most a second ago; True where nobody can tell."""
        if time.monotonic() < self._seen_at + FRESH_SECONDS:
            return self._seen
        with self._lock:
            others_look, done = self._looking, Signal()
            if others_look is None:
                self._looking = done
        if others_look is not None:
            return not others_look.wait(LOOK_SECONDS) or self._seen
        try:
            return waiting.aside(self._note_look)
        finally:  # also where the task is ended
            with self._lock:
                self._looking = None
            done.set()

    def _note_look(self) -> bool:
        try:
            self._seen = self._look()
        except OSError:
            self._seen = True
        self._seen_at = time.monotonic()
        return self._seen
