"""The stop signals that the main thread of ``bin/serve`` has received, and what they may interrupt."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import threading
from collections.abc import Iterator

from mistral_api.system.processes import handle_stop_signals

# The longest wait of the main thread without a look around (Windows delivers Ctrl-C only between waits).
POLL_SECONDS = 0.5


class StartInterrupted(BaseException):
    """A stop was requested during :meth:`StopRequests.interrupting`. No handler of failures must catch it."""


class StopRequests:
    """The stop signals received so far. Construct it in the main thread.

    The first asks for an orderly stop, a second one not to wait for running requests. SIGQUIT, Ctrl-\\ on a terminal,
    asks for both at once.
    """

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._interrupts = False
        # Whether any has come.
        self.received = False
        handle_stop_signals(self._note)

    def _note(self, number: int) -> None:
        self.received = True
        self._requests.put(number)
        if sys.platform != "win32" and number == signal.SIGQUIT:
            self._requests.put(number)
        if self._interrupts and threading.current_thread() is threading.main_thread():  # Windows has another one call
            self._interrupts = False
            raise StartInterrupted

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a request to stop break the block off by StartInterrupted, raised in the midst of it."""
        self._interrupts = True
        try:
            if self.received:
                raise StartInterrupted
            yield
        finally:
            self._interrupts = False

    def wait(self, seconds: float = POLL_SECONDS) -> bool:
        """Wait for the next request to stop; return False when none came in time."""
        try:
            self._requests.get(timeout=seconds)
        except queue.Empty:
            return False
        return True
