"""How long slots have been held lately: by that whoever cannot wait here is told when to come back."""

from __future__ import annotations

# How much the newest generation counts for: the mean is of about the last ten.
WEIGHT = 0.1
# What is assumed while nothing is known, and what is told at least and at most, in seconds.
FIRST_GUESS, LEAST_SECONDS, MOST_SECONDS = 5.0, 1.0, 120.0


class HoldTimes:
    """The exponential mean of the seconds that generations hold their slots."""

    def __init__(self) -> None:
        self.mean: float | None = None

    def note(self, seconds: float) -> None:
        """Note how long a generation that has ended held its slots."""
        self.mean = seconds if self.mean is None else self.mean + WEIGHT * (seconds - self.mean)

    def seconds_until_free(self, wanted: int, slots: int) -> float:
        """Return in how many seconds ``slots`` will have served what wants ``wanted`` slots, within the bounds."""
        mean = FIRST_GUESS if self.mean is None else self.mean
        return min(MOST_SECONDS, max(LEAST_SECONDS, mean * wanted / max(1, slots)))
