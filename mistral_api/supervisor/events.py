"""The queue between a supervisor's loop and what happens around it: signal handlers and threads only enqueue."""

from __future__ import annotations

import queue
import time
from typing import Literal, TypeAlias

from mistral_api.system.service_manager import ServiceManager

# The longest single wait: the service manager wants a sign of life, and Windows delivers signals between waits only.
MAX_WAIT_SECONDS = 0.5

Event: TypeAlias = Literal["stop", "exited"]


class StopRequested(RuntimeError):
    """A stop was requested before there was a process to stop."""


class Events:
    """The events of one loop. ``queue`` takes them from any thread and from signal handlers.

    Every turn of the loop waits here, so here the service manager gets its signs of life.
    """

    def __init__(self, manager: ServiceManager | None = None) -> None:
        self._manager = manager or ServiceManager()
        self.queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.stop_requested = False

    def request_stop(self) -> None:
        """Enqueue a request to stop. Signal handlers and other threads call this."""
        self.queue.put("stop")

    def wait(self, seconds: float) -> None:
        """Wait for one event, for so many seconds at most."""
        self._manager.feed_watchdog()
        try:
            event = self.queue.get(timeout=seconds) if seconds > 0 else self.queue.get_nowait()
        except queue.Empty:
            return
        self.stop_requested = self.stop_requested or event == "stop"

    def poll_stop(self) -> bool:
        """Take an event that has come, if there is one, and return whether a stop was requested."""
        self.wait(0.0)
        return self.stop_requested

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds. Only a request to stop ends it early."""
        deadline = time.monotonic() + seconds
        while not self.stop_requested and (left := deadline - time.monotonic()) > 0:
            self.wait(min(left, MAX_WAIT_SECONDS))
