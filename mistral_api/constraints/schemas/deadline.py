"""How long the compilation of a schema may take."""

from __future__ import annotations

import time

from mistral_api.constraints.schemas.errors import SchemaRefused

# Of processor time: a schema of ordinary size takes some milliseconds.
_MOST_SECONDS = 2.0


class Deadline:
    """The end of one compilation, in the processor time of the thread that has made it.

    It is checked before each step whose own time is bounded: each goal, each pattern.
    """

    def __init__(self, seconds: float | None = None) -> None:
        """``seconds``: of processor time from now on; those of one schema where it is None."""
        most = _MOST_SECONDS if seconds is None else seconds
        self._end = time.thread_time() + most
        # No thread has had more time of a processor than has passed: that clock is read at less cost.
        self._earliest = time.monotonic() + most

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._earliest and time.thread_time() >= self._end

    def check(self) -> None:
        """Raise SchemaRefused where the time is over."""
        if self.is_over:
            raise SchemaRefused("", "it takes too long to compile")
