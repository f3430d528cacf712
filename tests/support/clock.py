"""A clock in place of the real one."""

from __future__ import annotations


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time now, in seconds."""
        return self.now
