"""One lane: requests that wait in the order of their arrival, and threads that answer them, as few at once as suffice.

Python computes on one thread at a time. So a burst of requests that only compute is answered soonest where few threads
take one after the other: each further one would only wait for the interpreter, and have the others wait. Where threads
block, others take their place: a thread that waits for PostgreSQL or a lock says so (``event_loop.blocking``), and what
blocks without a word is noticed by the requests that wait meanwhile.

The thread that has been idle for the shortest time is woken first; what it needs is still in the processor's caches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from mistral_api.event_loop.blocking import told_of_blocking
from mistral_api.event_loop.loop import EventLoop
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

# So many threads answer requests at once while none of them blocks.
AT_WORK = 1
# How often it is looked whether requests wait for threads that block.
LOOK_SECONDS = 0.005
# The process computes where its threads use more than this part of the time.
COMPUTING = 0.5


class _Worker:
    """A thread of a lane. ``channel``: what it shall serve next; None when it is woken: it shall end."""

    __slots__ = ("channel", "wake")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.wake = threading.Lock()
        self.wake.acquire()


class Lane:
    """Threads, started when they are needed first, and the requests that wait for one of them."""

    def __init__(self, name: str, threads: int, most_waiting: int, loop: EventLoop, *, at_work: int = AT_WORK) -> None:
        """``at_work``: how many of the threads answer requests at once while none of them blocks."""
        self._name = name
        self._most_threads = threads
        self._most_waiting = most_waiting
        self._loop = loop
        self._usual = self._allowed = min(at_work, threads)
        # Guards what follows.
        self._lock = threading.Lock()
        self._waiting: deque[Any] = deque()
        self._idle: list[_Worker] = []
        self._threads = self._at_work = 0
        self._ended = threading.Condition(self._lock)
        self._closed = self._is_watched = False
        # Since the last look: when that was, whether a request was taken, and the processor time until then.
        self._looked_at = self._computed = 0.0
        self._took = False
        self._warn = ThrottledWarning(log)

    @property
    def full(self) -> bool:
        """Whether no further request may wait."""
        return len(self._waiting) >= self._most_waiting

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread."""
        return len(self._waiting)

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._threads

    def add_task(self, channel: Any) -> None:
        """Have the first request of a channel answered; any thread may call this."""
        with self._lock:
            self._waiting.append(channel)
            self._wake_some()
            watch = bool(self._waiting) and not self._is_watched
            if watch:
                self._is_watched = True
        if watch:
            self._loop.call_soon(self._watch)

    def _wake_some(self) -> None:
        """Give requests that wait to idle threads, or new ones, as far as more may be at work. The lock is held."""
        while self._waiting and self._at_work < self._allowed and not self._closed:
            if self._idle:
                worker = self._idle.pop()
                worker.channel = self._take()
                worker.wake.release()
            elif not self._start_thread():
                return

    def _take(self) -> Any:
        self._at_work += 1
        self._took = True
        return self._waiting.popleft()

    def _start_thread(self) -> bool:
        """Have a new thread serve a request, if there may be one more. The lock is held."""
        if self._threads >= self._most_threads:
            return False
        worker = _Worker(self._take())
        self._threads += 1
        name = f"waitress-{self._name}-{self._threads}"
        try:
            threading.Thread(target=self._run, args=(worker,), name=name, daemon=True).start()
        except RuntimeError as error:  # the system gives no further thread: those that there are go on
            self._threads -= 1
            self._at_work -= 1
            self._waiting.appendleft(worker.channel)
            self._warn("a thread for requests cannot be started: %s", error)
            return False
        return True

    def _run(self, worker: _Worker) -> None:
        with told_of_blocking(self._note_blocking):
            while worker.channel is not None:
                try:
                    worker.channel.service()
                except BaseException:
                    log.exception("unforeseen failure of a thread that serves requests")
                worker.channel = None
                self._go_on(worker)
        with self._lock:
            self._threads -= 1
            self._ended.notify_all()

    def _go_on(self, worker: _Worker) -> None:
        """Have a thread that has served a request take the next one; where none is for it, wait."""
        with self._lock:
            self._at_work -= 1
            if self._closed:
                return
            if self._waiting and self._at_work < self._allowed:
                worker.channel = self._take()
                return
            self._idle.append(worker)
        worker.wake.acquire()

    def _note_blocking(self, blocks: bool) -> None:
        with self._lock:
            self._at_work += -1 if blocks else 1
            self._wake_some()

    def _watch(self) -> None:
        """Begin to look at requests that wait. The loop calls this, and what follows."""
        self._looked_at, self._computed, self._took = time.monotonic(), time.process_time(), False
        self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Have more threads at work where requests wait though the processor does not, or where none was taken."""
        now, computed = time.monotonic(), time.process_time()
        with self._lock:
            if not self._waiting or self._closed:
                self._is_watched = False
                self._allowed = self._usual
                return
            is_computing = computed - self._computed > COMPUTING * (now - self._looked_at)
            if is_computing and self._took:
                self._allowed = max(self._usual, self._allowed - 1)
            else:
                self._allowed = min(self._allowed + max(1, self._allowed // 2), self._most_threads)
                self._wake_some()
        self._watch()

    def close(self) -> None:
        """Let every thread end once it has served its request."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.wake.release()

    def cancel_waiting(self, seconds: float) -> None:
        """Wait for so long until all threads of a closed lane have ended, and close the connections that still wait."""
        with self._lock:
            if not self._ended.wait_for(lambda: not self._threads, seconds):
                log.warning("%d threads of the lane '%s' still run", self._threads, self._name)
            waiting = list(self._waiting)
            self._waiting.clear()
        for channel in waiting:
            channel.cancel()
