"""The event loop: one thread waits for all sockets at once, and has functions called in it, now, soon or later.

A watched descriptor stays registered with the system while somebody reads from it again and again, as from a stream:
only a change of what is waited for costs a system call.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context

from greenlet import getcurrent, greenlet

from mistral_api.event_loop.task import Task, has_input

log = logging.getLogger(__name__)

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# How exactly the deadlines of sockets are kept: looking at them costs a look at all.
DEADLINE_SECONDS = 0.1
# Threads for what blocks beside the loop.
ASIDE_THREADS = 4
# How long the tasks that are left may take to end with the loop.
END_SECONDS = 2.0
# Whether select() does not see that a socket was shut down by this process itself.
_MISSES_SHUTDOWNS = sys.platform == "win32"
# Cancelled timers stay in the heap until they are due, unless they are most of it and more than this.
_MANY_CANCELLED = 256


class LoopTimer:
    """A call that is due at a moment of the monotonic clock."""

    __slots__ = ("_loop", "due", "function")

    def __init__(self, loop: EventLoop, due: float, function: Callable[[], None]) -> None:
        self._loop = loop
        self.due = due
        self.function: Callable[[], None] | None = function

    def __lt__(self, other: LoopTimer) -> bool:
        return self.due < other.due

    def cancel(self) -> None:
        """Do not call. To be called in the loop."""
        if self.function is not None:
            self.function = None
            self._loop.note_cancelled()


class _Watch:
    """A file descriptor: what is called, or who goes on, when it can be read or written."""

    __slots__ = ("events", "number", "on_readable", "on_writable", "reader", "writer")

    def __init__(self, number: int) -> None:
        self.number = number
        # What the system watches it for.
        self.events = 0
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.reader: Task | None = None
        self.writer: Task | None = None


class EventLoop:
    """Runs in the thread that calls :meth:`run`, until :meth:`stop`. What does not say so is to be called in it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watches: dict[int, _Watch] = {}
        self._soon: deque[Callable[[], None]] = deque()
        self._timers: list[LoopTimer] = []
        self._cancelled = 0
        self._tasks: set[Task] = set()
        self._hub: greenlet | None = None
        self._thread: int | None = None
        self._stopping = False
        self._next_deadlines = 0.0
        self._aside = ThreadPoolExecutor(ASIDE_THREADS, thread_name_prefix="event-loop-aside")
        self._wake_receiver, self._wake_sender = socket.socketpair()
        for end in (self._wake_receiver, self._wake_sender):
            end.setblocking(False)
        self._woken = False
        self.watch(self._wake_receiver.fileno(), self._take_wake, None)

    @property
    def hub(self) -> greenlet:
        """The greenlet that runs the loop."""
        assert self._hub is not None, "the loop does not run"  # noqa: S101
        return self._hub

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in this loop, as a task or not."""
        return threading.get_ident() == self._thread

    @property
    def tasks(self) -> int:
        """How many tasks there are; any thread may ask."""
        return len(self._tasks)

    def run(self) -> None:
        """Run until :meth:`stop`, then end all tasks."""
        self._hub, self._thread = getcurrent(), threading.get_ident()
        try:
            while not self._stopping:
                self._run_once()
            self._end_tasks()
        finally:
            self._close()

    def _end_tasks(self) -> None:
        """End the tasks that are left. What they do at their end may wait once more."""
        for task in list(self._tasks):
            task.end()
        deadline = time.monotonic() + END_SECONDS
        while self._tasks and time.monotonic() < deadline:
            self._run_once()

    def stop(self) -> None:
        """End the loop; any thread may call this."""
        self.call_soon(self._note_stop)

    def _note_stop(self) -> None:
        self._stopping = True

    def _close(self) -> None:
        self._aside.shutdown(wait=False, cancel_futures=True)
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have a function called in the loop, after those that wait already; any thread may call this."""
        self._soon.append(function)
        if not self._woken and threading.get_ident() != self._thread:
            self._woken = True
            with contextlib.suppress(OSError):  # full: it wakes anyway; closed: the loop has ended
                self._wake_sender.send(b"\0")

    def call_later(self, seconds: float, function: Callable[[], None]) -> LoopTimer:
        """Have a function called after some time."""
        timer = LoopTimer(self, time.monotonic() + seconds, function)
        heapq.heappush(self._timers, timer)
        return timer

    def note_cancelled(self) -> None:
        """Count a timer that was cancelled, and drop such where they are many."""
        self._cancelled += 1
        if self._cancelled > _MANY_CANCELLED and self._cancelled * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if timer.function is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def spawn(self, function: Callable[[], None], context: Context | None = None) -> None:
        """Run a function as a task; any thread may call this. ``context``: whose variables it sees."""
        self.call_soon(lambda: self._start(function, context))

    def _start(self, function: Callable[[], None], context: Context | None) -> None:
        def run() -> None:
            try:
                function()
            finally:
                self._tasks.discard(task)

        task = Task(self, run, context)
        self._tasks.add(task)
        task.switch()

    def run_aside(self, function: Callable[[], None]) -> None:
        """Have a function called on a thread beside the loop."""
        self._aside.submit(function)

    def watch(
        self, number: int, on_readable: Callable[[], None] | None, on_writable: Callable[[], None] | None
    ) -> None:
        """Have these called whenever a file descriptor can be read, or written; None: do not ask for it."""
        watch = self._watch_of(number)
        watch.on_readable, watch.on_writable = on_readable, on_writable
        self._update(watch)

    def forget(self, number: int) -> None:
        """Watch a file descriptor no longer: it is about to be closed, or has been."""
        watch = self._watches.pop(number, None)
        if watch is not None and watch.events:
            with contextlib.suppress(KeyError, OSError):
                self._selector.unregister(number)
            watch.events = 0

    def wait_readable(self, task: Task, number: int, seconds: float | None) -> bool:
        """Return True once a file descriptor can be read, or False after ``seconds``. The task calls this."""
        watch = self._watches.get(number) or self._watch_of(number)
        watch.reader = task
        try:
            if not watch.events & _READ:
                self._update(watch)
            return self._wait(task, seconds)
        finally:
            watch.reader = None

    def wait_writable(self, task: Task, number: int, seconds: float | None) -> bool:
        """Return True once a file descriptor can be written, or False after ``seconds``. The task calls this."""
        watch = self._watch_of(number)
        watch.writer = task
        try:
            self._update(watch)
            return self._wait(task, seconds)
        finally:
            watch.writer = None
            self._update(watch)

    def _wait(self, task: Task, seconds: float | None) -> bool:
        task.wakes_at = float("inf") if seconds is None else time.monotonic() + seconds
        return bool(self.hub.switch())

    def _watch_of(self, number: int) -> _Watch:
        watch = self._watches.get(number)
        if watch is None:
            watch = self._watches[number] = _Watch(number)
        return watch

    def _update(self, watch: _Watch) -> None:
        """Have the system watch a descriptor for what is wanted of it now."""
        wanted = 0
        if watch.reader is not None or watch.on_readable is not None:
            wanted |= _READ
        if watch.writer is not None or watch.on_writable is not None:
            wanted |= _WRITE
        if wanted == watch.events:
            return
        if not watch.events:
            self._selector.register(watch.number, wanted, watch)
        elif wanted:
            self._selector.modify(watch.number, wanted, watch)
        else:
            self._selector.unregister(watch.number)
        watch.events = wanted

    def _run_once(self) -> None:
        for key, events in self._selector.select(self._pause()):
            watch: _Watch = key.data
            if events & _READ and watch.events & _READ:  # not forgotten meanwhile
                self._note_readable(watch)
            if events & _WRITE and watch.events & _WRITE:
                self._note_writable(watch)
        for _ in range(len(self._soon)):
            self._call(self._soon.popleft())
        now = time.monotonic()
        while self._timers and self._timers[0].due <= now:
            self._call_timer(heapq.heappop(self._timers))
        if now >= self._next_deadlines:
            self._next_deadlines = now + DEADLINE_SECONDS
            self._end_waits(now)

    def _pause(self) -> float:
        """Return for how long the loop may sleep."""
        if self._soon:
            return 0.0
        now = time.monotonic()
        until = self._next_deadlines
        if self._timers:
            until = min(until, self._timers[0].due)
        return max(0.0, until - now)

    def _note_readable(self, watch: _Watch) -> None:
        if watch.reader is not None:
            watch.reader.switch(True)
        elif watch.on_readable is not None:
            self._call(watch.on_readable)
        else:  # nobody reads from it now: the system must not tell it again and again
            self._update(watch)

    def _note_writable(self, watch: _Watch) -> None:
        if watch.writer is not None:
            watch.writer.switch(True)
        elif watch.on_writable is not None:
            self._call(watch.on_writable)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            log.exception("unforeseen failure in the event loop")

    def _call_timer(self, timer: LoopTimer) -> None:
        function, timer.function = timer.function, None
        if function is None:
            self._cancelled -= 1
        else:
            self._call(function)

    def _end_waits(self, now: float) -> None:
        """Let tasks go on that have waited for a socket as long as they may."""
        for watch in list(self._watches.values()):
            for task in (watch.reader, watch.writer):
                if task is not None and task.wakes_at <= now:
                    task.wakes_at = float("inf")
                    task.switch(False)
            if _MISSES_SHUTDOWNS:
                self._note_shutdown(watch)

    def _note_shutdown(self, watch: _Watch) -> None:
        """Let a task go on whose socket was shut down while it waits to read it."""
        connection = None if watch.reader is None else watch.reader.waits_for
        if connection is not None and has_input(connection):
            self._note_readable(watch)

    def _take_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_receiver.recv(4096)  # what is left, if it ever is so much, wakes the loop once more
        # Only now: whoever saw it set has sent nothing, and is called in this turn; whoever sees it unset sends a byte.
        # The other way around a byte could be taken whose sender had set it again, and nobody sent another one.
        self._woken = False
