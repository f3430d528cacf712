"""A deadline for streams that may take any time as long as they flow: COPY, and the output of pg_dump."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

STALL_SECONDS = 120.0
_CHECK_SECONDS = 1.0


class StallGuard:
    """Calls ``abort`` once if nobody calls :meth:`progress` for a time. Use it as a context manager.

    A thread of its own watches, since the thread that is stuck in libpq or in a read cannot.
    """

    def __init__(self, abort: Callable[[], object], seconds: float = STALL_SECONDS) -> None:
        """``abort`` must make the stuck call fail. ``seconds`` is the longest silence."""
        self._abort = abort
        self._seconds = seconds
        self._last = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stall-guard", daemon=True)
        self.stalled = False

    def progress(self) -> None:
        """Say that the stream flows."""
        self._last = time.monotonic()

    def __enter__(self) -> StallGuard:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(min(_CHECK_SECONDS, self._seconds / 4)):
            if time.monotonic() - self._last > self._seconds:
                self.stalled = True
                self._abort()
                return
