"""What happens around the supervisor's loop: signal handlers and threads only enqueue, the loop waits here."""

from __future__ import annotations

import queue
import time
from typing import Literal, TypeAlias

from mistral_api.system.service_manager import ServiceManager

# The longest single wait: the service manager wants to hear of us, and Windows delivers signals between waits only.
LOOK_SECONDS = 0.5

Event: TypeAlias = Literal["stop", "exited"]


class Events:
    """The events that have come and not been looked at. ``stopping``: whether one of them asked to stop.

    Every turn of the loop comes by here, so here the service manager hears that the loop turns.
    """

    def __init__(self, manager: ServiceManager | None = None) -> None:
        self._manager = manager or ServiceManager()
        self.queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.stopping = False

    def wait(self, seconds: float) -> None:
        """Wait for one event, at most so long."""
        self._manager.feed_watchdog()
        try:
            event = self.queue.get(timeout=seconds) if seconds > 0 else self.queue.get_nowait()
        except queue.Empty:
            return
        self.stopping = self.stopping or event == "stop"

    def pause(self, seconds: float) -> None:
        """Wait so long; only a request to stop ends it early."""
        deadline = time.monotonic() + seconds
        while not self.stopping and (left := deadline - time.monotonic()) > 0:
            self.wait(min(left, LOOK_SECONDS))
