"""When a server that has crashed is started again, and when it is given up: a model server, the embedded PostgreSQL."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable

FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.1, 30.0
DELAY_GROWTH = 3.0
HEALTHY_SECONDS = 60.0
WINDOW_SECONDS = 600.0
# Waits of a server that has been given up because it hangs.
FIRST_SLOW_DELAY_SECONDS, MAX_SLOW_DELAY_SECONDS = 300.0, 3600.0


class Backoff:
    """The delays before restarts: they grow with each crash, and start over after a minute of health.

    There are none after too many restarts. Both those within ten minutes count and those in a row without a minute of
    health, since a server that always hangs may take longer than ten minutes for so many.
    """

    def __init__(self, max_restarts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_restarts = max_restarts
        self._clock = clock
        self._restarts: deque[float] = deque()
        self._crashes_in_a_row = 0
        self._slow_delays_in_a_row = 0

    def next_delay(self, healthy_seconds: float) -> float | None:
        """Count a crash. Return the seconds to wait before the next start, or None after too many restarts.

        ``healthy_seconds``: how long the server had been ready and making progress when it crashed.
        """
        now = self._clock()
        while self._restarts and now - self._restarts[0] > WINDOW_SECONDS:
            self._restarts.popleft()
        if healthy_seconds >= HEALTHY_SECONDS:
            self._crashes_in_a_row = self._slow_delays_in_a_row = 0
        if max(len(self._restarts), self._crashes_in_a_row) >= self._max_restarts:
            return None
        self._restarts.append(now)
        self._crashes_in_a_row += 1
        longest = min(FIRST_DELAY_SECONDS * DELAY_GROWTH ** (self._crashes_in_a_row - 1), MAX_DELAY_SECONDS)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - jitter

    def start_over(self) -> None:
        """Forget all crashes: what is started next is another program."""
        self._restarts.clear()
        self._crashes_in_a_row = self._slow_delays_in_a_row = 0

    def next_slow_delay(self) -> float:
        """Return the seconds to wait before a server that was given up for its hangs is started again.

        They double with each call, up to an hour, until it has been healthy for a minute.
        """
        delay = min(FIRST_SLOW_DELAY_SECONDS * 2.0**self._slow_delays_in_a_row, MAX_SLOW_DELAY_SECONDS)
        self._slow_delays_in_a_row = min(self._slow_delays_in_a_row + 1, 10)
        return delay
