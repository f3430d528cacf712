"""When to restart, when to give up.

When a crashed model server is started again, and when it is given up.

Why there is no model server, and never will be without somebody's doing.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable

FIRST_SECONDS, LAST_SECONDS = 0.1, 30.0
GROWTH = 3.0
HEALTHY_SECONDS = 60.0
WINDOW_SECONDS = 600.0


class Backoff:
    """Grows with each crash, starts over after a minute of health, ends after too many restarts.

    Too many: in ten minutes, or in a row without that minute: a server that always hangs takes longer than ten
    minutes to do so often.
    """

    def __init__(self, max_restarts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_restarts = max_restarts
        self._clock = clock
        self._restarts: deque[float] = deque()
        self._crashes_in_a_row = 0

    def next_delay(self, healthy_seconds: float) -> float | None:
        """Seconds to wait before the next start, or None when there have been too many.

        ``healthy_seconds``: how long the server had been ready, and got on, when it crashed.
        """
        now = self._clock()
        while self._restarts and now - self._restarts[0] > WINDOW_SECONDS:
            self._restarts.popleft()
        if healthy_seconds >= HEALTHY_SECONDS:
            self._crashes_in_a_row = 0
        if max(len(self._restarts), self._crashes_in_a_row) >= self._max_restarts:
            return None
        self._restarts.append(now)
        self._crashes_in_a_row += 1
        longest = min(FIRST_SECONDS * GROWTH ** (self._crashes_in_a_row - 1), LAST_SECONDS)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - jitter


class StopRequested(RuntimeError):
    """We were asked to stop before there was anything to stop."""


class TooManyRestarts(RuntimeError):
    """The model server has crashed too often; the message says how often, and its last words."""
