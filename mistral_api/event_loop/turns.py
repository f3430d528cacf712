"""Turns: a few tasks or threads at a time do something, the others wait for it in the order of their arrival."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from mistral_api.event_loop.waiting import Signal


class Turns:
    """Lets ``at_once`` callers be in :meth:`turn` at a time. For tasks and threads."""

    def __init__(self, at_once: int) -> None:
        self._lock = threading.Lock()
        self._free = at_once
        self._waiting: deque[Signal] = deque()

    @contextlib.contextmanager
    def turn(self, seconds: float | None = None) -> Iterator[bool]:
        """Wait for a turn, and hold it in the block. False: it did not come within ``seconds``."""
        signal = Signal()
        with self._lock:
            self._waiting.append(signal)
            self._give()
        try:
            yield signal.wait(seconds)
        finally:  # also where the task is ended while it waits
            with self._lock:
                if signal.is_set:
                    self._free += 1
                else:
                    self._waiting.remove(signal)
                self._give()

    def _give(self) -> None:
        while self._waiting and self._free:
            self._free -= 1
            self._waiting.popleft().set()
