"""The slots of a model server: which generations have them, which wait for them, and how long that takes.

They are in the memory of one process (:class:`OwnSlotPool`). Where several API processes share them
(API_PROCESSES), that is the first one's, and the others have
:class:`mistral_api.upstream.shared_slot_pool.RemoteSlotPool`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from mistral_api.errors import ModelUnavailable
from mistral_api.upstream.hold_times import HoldTimes
from mistral_api.upstream.slot_queue import SlotQueue, Waiter

# Positions are looked at again after so long, when somebody asks.
POSITION_SECONDS = 1.0


class SlotPool(Protocol):
    """Gives slots to generations in turn. Safe to use from many threads, and in tasks."""

    @property
    def size(self) -> int | None:
        """How many slots there are; None, where nobody knows, holds nothing back."""

    @property
    def busy(self) -> int:
        """How many slots generations of this process have, or where nobody knows of slots, how many are under way."""

    @property
    def waiting(self) -> int:
        """How many generations of this process wait."""

    def add(self, waiter: Waiter, *, refusable: bool) -> float | None:
        """Give a generation its slots, or have it wait for them.

        Return None, or, where it is ``refusable`` and one too many, in how many seconds it is worth coming back.
        Raises Unavailable where the slots are another process's, which has ended.
        """

    def leave(self, waiter: Waiter) -> None:
        """Take back a generation that waits no longer, or that has just been admitted."""

    def release(self, waiter: Waiter) -> None:
        """Take back the slots of a generation that has ended. Later calls do nothing."""

    def seconds_until_room(self) -> float | None:
        """Return None where one more may wait, else in how many seconds it is worth coming back.

        Raises as :meth:`add` does.
        """

    def position(self, waiter: Waiter) -> int:
        """Return the position of a generation that waits, as it was a moment ago."""

    def give_up(self, error: ModelUnavailable, seconds: float) -> None:
        """Refuse all that have waited for so long."""

    def wake_all(self) -> None:
        """Have all that wait in this process look at what has changed."""


class OwnSlotPool:
    """The slots in the memory of this process (:class:`SlotPool`)."""

    def __init__(
        self, size: int | None, *, most_waiting: int = 4096, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``most_waiting``: how many may wait; where nobody knows of slots, how many are sent at a time."""
        self.size = size
        self._most_waiting = most_waiting
        self._clock = clock
        self._lock = threading.Lock()
        self._queue = SlotQueue()
        self._hold_times = HoldTimes()
        self._positions_until = float("-inf")
        # Those of other processes, at least as long as they wait or have slots.
        self.remote: set[Waiter] = set()

    @property
    def busy(self) -> int:
        with self._lock:
            remote = [waiter.count for waiter in self.remote.copy() if waiter.admitted and not waiter.ended]
            return self._queue.busy - sum(remote)

    @property
    def waiting(self) -> int:
        with self._lock:
            remote = [waiter for waiter in self.remote.copy() if waiter.waits]
            return len(self._queue) - len(remote)

    @property
    def has_plenty(self) -> bool:
        """Whether more than half of those that may wait would still have room."""
        taken = self._queue.busy if self.size is None else len(self._queue)
        return 2 * taken < self._most_waiting

    def add(self, waiter: Waiter, *, refusable: bool) -> float | None:
        queue = self._queue
        with self._lock:
            if refusable:
                seconds = self._seconds_until_room()
                if seconds is not None:
                    return seconds
            if not len(queue) and self._has_room(waiter):
                queue.admit_first(waiter)
                waiter.began = self._clock()
                return None
            queue.add(waiter)
            admitted = self._admit()
        _wake(admitted)
        return None

    def leave(self, waiter: Waiter) -> None:
        with self._lock:
            if waiter.ended:
                return
            waiter.ended = True
            self._take_out(waiter)
            admitted = self._admit()
        _wake(admitted)

    def release(self, waiter: Waiter) -> None:
        with self._lock:
            if waiter.ended:
                return
            waiter.ended = True
            if waiter.admitted:  # else it was passed over, and ran all the same
                self._hold_times.note(self._clock() - waiter.began)
            self._take_out(waiter)
            admitted = self._admit()
        _wake(admitted)

    def _take_out(self, waiter: Waiter) -> None:
        """Take back what a generation has, its slots or its place in the queue. The lock is held."""
        if waiter.admitted:
            self._queue.free(waiter)
        elif not waiter.passed_over:
            self._queue.remove(waiter)

    def pass_over(self, waiters: Iterable[Waiter], seconds: float) -> None:
        """Take generations out of the queue until :meth:`take_up`, and give others the slots of those which have had
        theirs for at least so long."""
        with self._lock:
            latest = self._clock() - seconds
            for waiter in waiters:
                if waiter.waits or (waiter.admitted and not waiter.ended and waiter.began <= latest):
                    self._take_out(waiter)
                    waiter.admitted, waiter.passed_over = False, True
            admitted = self._admit()
        _wake(admitted)

    def take_up(self, waiters: Iterable[Waiter]) -> None:
        """Have those wait again that were passed over, in the order in which they came."""
        with self._lock:
            back = [waiter for waiter in waiters if waiter.passed_over and not waiter.ended]
            for waiter in back:
                waiter.passed_over = False
            self._queue.put_back(back)
            admitted = self._admit()
        _wake(admitted)

    def seconds_until_room(self) -> float | None:
        with self._lock:
            return self._seconds_until_room()

    def position(self, waiter: Waiter) -> int:
        with self._lock:
            now = self._clock()
            if now >= self._positions_until:
                self._positions_until = now + POSITION_SECONDS
                self._queue.number_positions()
            return waiter.position

    def give_up(self, error: ModelUnavailable, seconds: float) -> None:
        latest = self._clock() - seconds
        for waiter in self._waiters():
            if waiter.arrived <= latest:  # each with an error of its own: they get headers
                waiter.refusal = ModelUnavailable(error.message, code=error.code, retry_after=error.retry_after or 1)
                waiter.wake()

    def wake_all(self) -> None:
        _wake(self._waiters())

    def _waiters(self) -> list[Waiter]:
        with self._lock:
            return self._queue.waiters()

    def _seconds_until_room(self) -> float | None:
        """Return None where one more may wait, or else the seconds. The lock is held."""
        queue = self._queue
        if self.size is None:
            if queue.busy < self._most_waiting:
                return None
            # By then most of those under way will have ended.
            return self._hold_times.seconds_until_free(1, 1)
        if len(queue) < self._most_waiting:
            return None
        return self._hold_times.seconds_until_free(queue.wanted + 1, self.size)

    def _admit(self) -> list[Waiter]:
        """Admit those whose turn it is, as far as there are slots for them, and return them. The lock is held."""
        admitted = []
        while (waiter := self._queue.next()) is not None and self._has_room(waiter):
            self._queue.admit(waiter)
            waiter.began = self._clock()
            admitted.append(waiter)
        return admitted

    def _has_room(self, waiter: Waiter) -> bool:
        return self.size is None or self._queue.busy + waiter.count <= self.size


def _wake(waiters: list[Waiter]) -> None:
    """Wake them. No lock is held: to wake one of another process may end that process, which gives slots back."""
    for waiter in waiters:
        waiter.wake()
