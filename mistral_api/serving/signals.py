"""Signals and other events that end the server: handlers only enqueue, the main thread decides."""

from __future__ import annotations

import queue
import signal
import sys

# The longest that a waiting main thread goes without looking around (Windows delivers Ctrl-C
# only between waits).
LOOK_SECONDS = 0.5


class StopRequests:
    """The stop signals received so far. Make it in the main thread."""

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[int] = queue.SimpleQueue()
        names = [signal.SIGINT, signal.SIGTERM]
        if sys.platform == "win32":
            names.append(signal.SIGBREAK)
        for name in names:
            signal.signal(name, lambda number, _frame: self._received.put(number))

    def wait(self, seconds: float = LOOK_SECONDS) -> bool:
        """Wait for the next request to stop; False when none came in time."""
        try:
            self._received.get(timeout=seconds)
        except queue.Empty:
            return False
        return True
