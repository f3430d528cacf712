"""A clock in place of the real one."""

from __future__ import annotations

import time

from tests.support.processes import wait_for

# How long a test takes at most that must not see a minute end.
TEST_SECONDS = 3.0


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time now, in seconds."""
        return self.now


def within_a_minute() -> None:
    """Return at a moment from which on no minute of the real clock, as limits count it, ends in TEST_SECONDS."""
    wait_for(lambda: time.monotonic() % 60 < 60 - TEST_SECONDS, "the next minute")
