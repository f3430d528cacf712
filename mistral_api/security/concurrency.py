"""The requests that run at the same moment, and the places that they hold."""

from __future__ import annotations

import threading
from collections.abc import Callable


class ConcurrentRequests:
    """Counts the running requests of each caller. Nothing is remembered of one who has none running."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}

    def take(self, name: str, most: int) -> RequestPlace | None:
        """Return a place for one more request of a caller, or None where ``most`` are running."""
        with self._lock:
            running = self._running.get(name, 0)
            if running >= most:
                return None
            self._running[name] = running + 1
        return RequestPlace(lambda: self._free(name))

    def __len__(self) -> int:
        """Return the number of callers with running requests."""
        return len(self._running)

    def _free(self, name: str) -> None:
        with self._lock:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]


class RequestPlace:
    """The place of one running request. It is free again when the last of those who hold it has let go."""

    def __init__(self, free: Callable[[], None]) -> None:
        """``free`` is called once."""
        self._free = free
        self._lock = threading.Lock()
        self._holders = 0

    def hold(self) -> Callable[[], None]:
        """Hold the place. Return what lets go of it; calling that again changes nothing."""
        with self._lock:
            self._holders += 1
        held = threading.Lock()

        def let_go() -> None:
            if held.acquire(blocking=False):
                self._let_go()

        return let_go

    def _let_go(self) -> None:
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._free()
