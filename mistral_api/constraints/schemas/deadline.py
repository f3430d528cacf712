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

    def __init__(self) -> None:
        self._end = time.thread_time() + _MOST_SECONDS

    def check(self) -> None:
        """Raise SchemaRefused where the time is over."""
        if time.thread_time() > self._end:
            raise SchemaRefused("", "it takes too long to compile")
