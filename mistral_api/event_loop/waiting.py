"""Waiting: it blocks the calling thread, or, in a task, gives the event loop its turn.

So the same code runs on a thread of any WSGI server, and as one of a thousand tasks in the loop of ours. Code that may
run in a task waits through this module alone: never by ``time.sleep``, an event of ``threading`` or a blocking socket,
and never with a lock held.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

from mistral_api.event_loop.blocking import blocking
from mistral_api.event_loop.task import Task, current_task, has_input

T = TypeVar("T")

# How soon a thread on Windows sees that another one has shut its socket down.
SHUTDOWN_SECONDS = 0.1


def in_task() -> bool:
    """Return whether the caller is a task, which must never block its thread."""
    return current_task() is not None


def readable(connection: socket.socket, seconds: float | None) -> bool:
    """Return True once a socket can be read, or its peer has closed it; False where ``seconds`` were not enough.

    None waits without an end. One task or thread at a time waits to read a socket.
    """
    task = current_task()
    if task is not None:
        task.waits_for = connection
        return task.loop.wait_readable(task, connection.fileno(), seconds)
    return _poll(connection, seconds, writing=False)


def writable(connection: socket.socket, seconds: float | None) -> bool:
    """Return True once a socket can be written, or has been connected, or has failed. See :func:`readable`."""
    task = current_task()
    if task is not None:
        return task.loop.wait_writable(task, connection.fileno(), seconds)
    return _poll(connection, seconds, writing=True)


def forget(connection: socket.socket) -> None:
    """Have the event loop watch a socket no longer. To be called before a socket is closed that a task waited for."""
    task = current_task()
    if task is not None:
        task.loop.forget(connection.fileno())


def _poll(connection: socket.socket, seconds: float | None, *, writing: bool) -> bool:
    with blocking():
        if sys.platform == "win32":
            return _select(connection, seconds, writing=writing)
        poller = select.poll()
        poller.register(connection, select.POLLOUT if writing else select.POLLIN)
        return bool(poller.poll(None if seconds is None else max(0, seconds) * 1000))


def _select(connection: socket.socket, seconds: float | None, *, writing: bool) -> bool:
    """Wait on Windows, which has no poll(), and whose select() does not see that the socket was shut down here."""
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    waits = ([], [connection], [connection]) if writing else ([connection], [], [])
    while True:
        left = max(0.0, deadline - time.monotonic())
        if any(select.select(*waits, min(left, SHUTDOWN_SECONDS))):
            return True
        if not writing and has_input(connection):
            return True
        if left <= 0:
            return False


def sleep(seconds: float) -> None:
    """Wait for some time."""
    task = current_task()
    if task is None:
        with blocking():
            time.sleep(seconds)
    else:
        Signal().wait(seconds)


def give_turn() -> None:
    """Let all others of the event loop go on, where a task has much to do at once. On a thread this does nothing."""
    task = current_task()
    if task is not None:
        turn = Signal()
        task.loop.call_soon(turn.set)
        turn.wait()


def aside(function: Callable[[], T]) -> T:
    """Return what a function returns that blocks: by a disk, a database, the resolver of names. Raises what it raises.

    A task waits while it runs on a thread beside the loop; elsewhere it is just called.
    """
    task = current_task()
    if task is None:
        return function()
    done = Signal()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the task
            errors.append(error)
        finally:
            done.set()

    context = copy_context()
    task.loop.run_aside(lambda: context.run(run))
    done.wait()
    if errors:
        raise errors[0]
    return results[0]


class Signal:
    """An event that happens once. Tasks and threads may wait for it, and any of them, or the loop, may set it."""

    __slots__ = ("_is_set", "_lock", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._waiters: list[Callable[[], None]] = []

    @property
    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """Note that it has happened; those who wait go on. Later calls change nothing."""
        with self._lock:
            self._is_set = True
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    def wait(self, seconds: float | None = None) -> bool:
        """Return True once it has happened, or False where ``seconds`` were not enough."""
        if self._is_set:
            return True
        task = current_task()
        return self._block(seconds) if task is None else self._switch(task, seconds)

    def _block(self, seconds: float | None) -> bool:
        held = threading.Lock()
        held.acquire()
        if self._add(held.release):
            with blocking():
                held.acquire(timeout=-1 if seconds is None else max(0.0, seconds))
            self._remove(held.release)
        return self._is_set

    def _switch(self, task: Task, seconds: float | None) -> bool:
        loop = task.loop
        woken = [False]

        def resume() -> None:  # by the timer, or by whoever sets the signal: the first one counts
            if not woken[0]:
                woken[0] = True
                task.switch()

        def wake() -> None:
            loop.call_soon(resume)

        if self._add(wake):
            timer = None if seconds is None else loop.call_later(max(0.0, seconds), resume)
            try:
                loop.hub.switch()
            finally:  # also where the task is ended
                woken[0] = True
                if timer is not None:
                    timer.cancel()
                self._remove(wake)
        return self._is_set

    def _add(self, wake: Callable[[], None]) -> bool:
        """Have a waiter woken; return False where there is nothing to wait for."""
        with self._lock:
            if not self._is_set:
                self._waiters.append(wake)
            return not self._is_set

    def _remove(self, wake: Callable[[], None]) -> None:
        with self._lock:
            if wake in self._waiters:
                self._waiters.remove(wake)
