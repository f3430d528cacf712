"""A task: code that runs in an event loop, and gives the loop its turn wherever it waits.

A task is a greenlet, a stack of its own within the thread of the loop. The code in it is ordinary code: what it calls
may wait through :mod:`mistral_api.event_loop.waiting`, at any depth.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Protocol

from greenlet import GreenletExit, getcurrent, greenlet

log = logging.getLogger(__name__)


class Loop(Protocol):
    """An event loop, as its tasks know it."""

    @property
    def hub(self) -> greenlet:
        """The greenlet that runs the loop; only it resumes tasks."""

    def wait_readable(self, task: Task, number: int, seconds: float | None) -> bool:
        """Return whether a file descriptor can be read, once it can, or False after ``seconds``."""

    def wait_writable(self, task: Task, number: int, seconds: float | None) -> bool:
        """Return whether a file descriptor can be written, once it can, or False after ``seconds``."""

    def forget(self, number: int) -> None:
        """Watch a file descriptor no longer: it is about to be closed."""

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have a function called in the loop; any thread may call this."""

    def call_later(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Have a function called in the loop after some time. To be called in the loop."""

    def run_aside(self, function: Callable[[], None]) -> None:
        """Have a function called on a thread beside the loop."""


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Do not call."""


class Task(greenlet):
    """``wakes_at``: until when, by the monotonic clock, the task waits for its socket at most. ``waits_for``: the
    socket that it waits to read, or did last."""

    def __init__(self, loop: Loop, function: Callable[[], None], context: Context | None = None) -> None:
        """To be called in the loop. ``context``: whose variables the task sees; a copy of the present ones by
        default."""
        super().__init__(parent=loop.hub)
        self.loop = loop
        self.wakes_at = float("inf")
        self.waits_for: socket.socket | None = None
        self._function = function
        self.gr_context = copy_context() if context is None else context

    def run(self) -> None:
        """Do what the task is for. What it raises ends it alone."""
        try:
            self._function()
        except GreenletExit:
            raise
        except Exception:
            log.exception("unforeseen failure of a task")
        finally:
            del self._function  # it may have the task, and neither would be released

    def end(self) -> None:
        """Have the task end where it waits, by GreenletExit. To be called in the loop."""
        with contextlib.suppress(GreenletExit):
            self.throw(GreenletExit)


def has_input(connection: socket.socket) -> bool:
    """Return whether there is something to read from a non-blocking socket: bytes, its end, or that it has failed.

    Unlike the system's waiting it also sees, on Windows, that the socket was shut down by this process. A blocking one
    is not asked: that would be to wait.
    """
    if connection.gettimeout() != 0:
        return False
    try:
        # The socket's own method: that of a TLS socket takes no flags.
        socket.socket.recv(connection, 1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def current_task() -> Task | None:
    """Return the task that calls this, or None where the caller is an ordinary thread, or the loop itself."""
    current = getcurrent()
    return current if isinstance(current, Task) else None
