"""How much was used within the last minute: counted in memory, or in Redis for several processes.

A window slides: of the minute before the current one, that part counts which lies within the last 60 seconds. That is
the strategy "sliding window counter" of the ``limits`` package, two numbers for each name, whatever the limit.

In Redis the package counts (``redis_windows``). In memory :class:`MemoryWindows` does: the package's own memory storage
starts a thread for each burst of hits, which reads every name it has, and it grows with their number.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import Protocol, TypeVar

from mistral_api.errors import Unavailable
from mistral_api.event_loop import waiting
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW_SECONDS = 60
# While the shared storage does not answer, it is left alone for so long after each failure.
AWAY_SECONDS = 2.0
# Larger than what anybody counts, and exact in the floating point numbers of Redis' scripts.
_NO_LIMIT = 1 << 52


class WindowsAway(Exception):
    """A shared storage of the windows does not answer. Its cause is the failure of the driver."""


class SlidingWindows(Protocol):
    """The storage of the windows, with the signatures of ``limits.storage.SlidingWindowCounterSupport``."""

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` and return True, or count nothing and return False where it would exceed the limit."""

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the count of the window before and its rest in seconds, the current count and its time to live."""


class MemoryWindows:
    """Windows in the memory of this process. Of more than ``most`` names, those that rested longest are forgotten."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns seconds that never run backwards."""
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        # For each name: the number of the window that was counted in last, its count, and that of the window before.
        self._counts: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of names that are remembered."""
        return len(self._counts)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` and return True, or count nothing and return False where it would exceed the limit."""
        with self._lock:
            number, seconds_left = self._position(expiry)
            previous, current = self._read(key, number)
            if floor(previous * seconds_left / expiry) + current + amount > limit:
                return False
            self._counts[key] = number, current + amount, previous
            self._counts.move_to_end(key)
            if len(self._counts) > self._most:
                self._counts.popitem(last=False)
            return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the count of the window before and its rest in seconds, the current count and its time to live."""
        with self._lock:
            number, seconds_left = self._position(expiry)
            previous, current = self._read(key, number)
        return previous, seconds_left, current, seconds_left + expiry

    def _position(self, expiry: int) -> tuple[int, float]:
        """Return the number of the current window, and the seconds that are left of it."""
        number, elapsed = divmod(self._clock(), expiry)
        return int(number), expiry - elapsed

    def _read(self, key: str, number: int) -> tuple[int, int]:
        """Return the counts of the window before ``number`` and of that one."""
        counted_in, current, previous = self._counts.get(key, (number, 0, 0))
        if counted_in == number:
            return previous, current
        return (current, 0) if counted_in == number - 1 else (0, 0)


@dataclass(frozen=True, slots=True)
class WindowUsage:
    """What is used of a limit a minute: the counts of both windows, and the seconds left of the current one."""

    limit: int
    previous: int
    current: int
    seconds_left: float

    @property
    def remaining(self) -> int:
        """How much may still be used now."""
        used = floor(self.previous * self.seconds_left / WINDOW_SECONDS) + self.current
        return max(0, self.limit - used)

    @property
    def reset_after(self) -> float:
        """The seconds until nothing counts any more, if nothing else is used."""
        if self.current:
            return self.seconds_left + WINDOW_SECONDS
        return self.seconds_left if self.previous else 0.0

    @property
    def retry_after(self) -> float:
        """The seconds until one more may be used, if nothing else is; slightly more where that is not exact."""
        if self.remaining:
            return 0.0
        if not self.limit:
            return WINDOW_SECONDS
        if self.current < self.limit:
            # The window before fades out far enough within the current one.
            return self.seconds_left - (self.limit - self.current) * WINDOW_SECONDS / self.previous + 0.001
        # The current window has to end, and then to fade out.
        return self.seconds_left + WINDOW_SECONDS * (1 - self.limit / self.current) + 0.001


class WindowCounts:
    """What many names have used. Safe to use from many threads.

    While a shared storage is away, this process counts in its own memory (``fail_open``), or nothing may be used.
    """

    def __init__(
        self,
        memory: MemoryWindows,
        shared: SlidingWindows | None = None,
        *,
        fail_open: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``shared`` raises WindowsAway while it is away."""
        self._memory = memory
        self._shared = shared
        self._fail_open = fail_open
        self._clock = clock
        self._away_until = float("-inf")
        self._warn = ThrottledWarning(log)

    def acquire(self, name: str, limit: int) -> bool:
        """Count one use, unless it exceeds the limit. Return whether it was counted. Raises Unavailable."""
        return self._ask(lambda windows: windows.acquire_sliding_window_entry(name, limit, WINDOW_SECONDS))

    def usage(self, name: str, limit: int) -> WindowUsage:
        """Return what is used. Raises Unavailable."""
        previous, _, current, time_to_live = self._ask(lambda each: each.get_sliding_window(name, WINDOW_SECONDS))
        return WindowUsage(limit, previous, current, max(0.0, time_to_live - WINDOW_SECONDS))

    def add(self, name: str, amount: int) -> None:
        """Count what has been used already, beyond any limit. It never fails: if need be, it is counted in memory."""
        try:
            self._ask(lambda each: each.acquire_sliding_window_entry(name, _NO_LIMIT, WINDOW_SECONDS, amount))
        except Unavailable:
            self._memory.acquire_sliding_window_entry(name, _NO_LIMIT, WINDOW_SECONDS, amount)

    def _ask(self, ask: Callable[[SlidingWindows], T]) -> T:
        shared = self._shared
        if shared is None:
            return ask(self._memory)
        if self._clock() >= self._away_until:
            try:
                return waiting.aside(lambda: ask(shared))
            except WindowsAway as error:
                self._away_until = self._clock() + AWAY_SECONDS
                # The type alone: a message of the driver may quote the URL with its password.
                self._warn(
                    "the storage of the rate limits does not answer: %s", type(error.__cause__ or error).__name__
                )
        if not self._fail_open:
            raise Unavailable("Requests cannot be counted now.", code="overloaded", retry_after=AWAY_SECONDS)
        return ask(self._memory)
