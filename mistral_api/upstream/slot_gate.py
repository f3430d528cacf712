"""The turn of every generation at the model server's slots: fair between owners, and in a queue of a bounded length.

llama.cpp gives a slot that is free to the request that has waited longest, so an owner with many requests in flight
would keep all others waiting; and each request that waits there holds a connection, and a thread of the model server.
So no more requests are sent than there are slots. The others wait here (:class:`SlotQueue`), where that costs next to
nothing: in a task not even a thread. One more under way, to be there when a slot becomes free, gained nothing that
could be measured on the bundled engine.

Where nobody knows how many slots there are, nothing is held back, and ``most_waiting`` bounds what is sent at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mistral_api.errors import ApiError, ModelTimeout, ModelUnavailable, Unavailable
from mistral_api.event_loop import waiting
from mistral_api.event_loop.waiting import Signal
from mistral_api.upstream.cancellation import WATCH_INTERVAL_SECONDS, UpstreamCall
from mistral_api.upstream.errors import cancelled_error
from mistral_api.upstream.hold_times import HoldTimes
from mistral_api.upstream.slot_queue import SlotQueue, Waiter

# Positions are looked at again after so long, when somebody asks.
POSITION_SECONDS = 1.0

Release = Callable[[], None]


def _tell_nobody(seconds: float) -> None:
    """Do nothing."""


class SlotGate:
    """Admits generations to one model server. Safe to use from many threads, and in tasks."""

    def __init__(
        self,
        slots: int | None,
        longest_wait: float,
        *,
        most_waiting: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``slots``: how many there are; None, where nobody knows, holds nothing back. ``longest_wait``: in seconds."""
        self._slots = slots
        self._longest_wait = longest_wait
        self._most_waiting = most_waiting
        self._clock = clock
        self._lock = threading.Lock()
        self._queue = SlotQueue()
        self._hold_times = HoldTimes()
        self._positions_until = float("-inf")
        self._closed = False
        # How many generations were refused because too many waited.
        self.refused = 0
        # Told how long each generation waited that had to, in seconds.
        self.on_wait: Callable[[float], None] = _tell_nobody

    def enter(self, owner: str, count: int, call: UpstreamCall) -> Release:
        """Return once a request that takes ``count`` slots may be sent. What is returned has to be called at its end.

        Raises what ends the call, Unavailable (``overloaded``) where too many wait, unless the client has been promised
        an answer, ModelTimeout, and what the place of the request is refused with.
        """
        waiter = Waiter(owner, count if self._slots is None else min(count, self._slots))
        waiter.arrived = self._clock()
        with self._lock:
            if self._closed:
                raise cancelled_error("shutdown")
            if not (call.promised or call.answered):
                self._require_room()
            self._queue.add(waiter)
            self._admit()
        if not waiter.admitted:
            self._wait(waiter, call)
        return self._releaser(waiter)

    def require_room(self) -> None:
        """Raise Unavailable (``overloaded``) where a generation would be one too many."""
        with self._lock:
            self._require_room()

    @property
    def busy(self) -> int:
        """How many slots generations of this process have; 0 where nobody knows of slots."""
        return 0 if self._slots is None else self._queue.busy

    @property
    def waiting(self) -> int:
        """How many generations of this process wait for a slot."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether no generation waits, or is under way."""
        return not self._queue.busy and not len(self._queue)

    def give_up(self, error: ModelUnavailable, seconds: float) -> None:
        """Refuse those who have waited for so long, as one was that had its turn: the model server does not come."""
        latest = self._clock() - seconds
        with self._lock:
            waiters = [waiter for waiter in self._queue.waiters() if waiter.arrived <= latest]
        for waiter in waiters:  # each with an error of its own: they get headers
            waiter.refusal = ModelUnavailable(error.message, code=error.code, retry_after=error.retry_after or 1)
            waiter.wake()

    def close(self) -> None:
        """Admit nobody any more; those that wait end at once."""
        with self._lock:
            self._closed = True
            waiters = self._queue.waiters()
        for waiter in waiters:
            waiter.wake()

    def position(self, waiter: Waiter) -> int:
        """Return the position of a request that waits, as it was a moment ago."""
        with self._lock:
            now = self._clock()
            if now >= self._positions_until:
                self._positions_until = now + POSITION_SECONDS
                self._queue.number_positions()
            return waiter.position

    def _require_room(self) -> None:
        """Raise Unavailable where too many wait. The lock is held."""
        queue = self._queue
        if self._slots is None:
            if queue.busy < self._most_waiting:
                return
            # By then most of those under way will have ended.
            seconds = self._hold_times.seconds_until_free(1, 1)
        else:
            if len(queue) < self._most_waiting:
                return
            seconds = self._hold_times.seconds_until_free(queue.wanted + 1, self._slots)
        self.refused += 1
        raise Unavailable(
            "Too many requests wait for the model server already.", code="overloaded", retry_after=seconds
        )

    def _admit(self) -> None:
        """Admit those whose turn it is, as far as there are slots for them. The lock is held."""
        while (waiter := self._queue.next()) is not None and self._has_room(waiter):
            self._queue.admit(waiter)
            waiter.began = self._clock()
            waiter.wake()

    def _has_room(self, waiter: Waiter) -> bool:
        return self._slots is None or self._queue.busy + waiter.count <= self._slots

    def _wait(self, waiter: Waiter, call: UpstreamCall) -> None:
        """Return once a request is admitted. Raises what ends its wait."""
        began = waiter.arrived
        call.queue_position = call.queue_position or waiter.position
        call.place = _Place(self, waiter)
        try:
            with call.waking(waiter.wake):
                self._wait_until(waiter, call, began + self._longest_wait)
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            call.place = None
            self.on_wait(self._clock() - began)

    def _wait_until(self, waiter: Waiter, call: UpstreamCall, deadline: float) -> None:
        polls = not (call.is_notified or waiting.in_task())
        while True:
            # Whoever changes what is looked at below sets the signal afterwards.
            signal = waiter.signal = Signal()
            if call.cancelled or self._closed:
                raise cancelled_error(call.reason or "shutdown")
            if waiter.admitted:
                return
            if waiter.refusal is not None:
                raise waiter.refusal
            left = deadline - self._clock()
            if left <= 0:
                raise ModelTimeout("No slot of the model server became free in time.")
            if (
                not signal.wait(min(left, WATCH_INTERVAL_SECONDS) if polls else left)
                and polls
                and call.client_is_gone()
            ):
                call.client_left()

    def _leave(self, waiter: Waiter) -> None:
        """Take back a request that waits no longer, or that has just been admitted."""
        with self._lock:
            if waiter.admitted:
                self._queue.free(waiter)
            else:
                self._queue.remove(waiter)
            self._admit()

    def _releaser(self, waiter: Waiter) -> Release:
        """Return what ends a request: its first call frees the slots, later ones do nothing."""
        held = [waiter]

        def release() -> None:
            with self._lock:
                if held:
                    held.clear()
                    self._hold_times.note(self._clock() - waiter.began)
                    self._queue.free(waiter)
                    self._admit()

        return release


class _Place:
    """The place of a request at a gate."""

    __slots__ = ("_gate", "_waiter")

    def __init__(self, gate: SlotGate, waiter: Waiter) -> None:
        self._gate, self._waiter = gate, waiter

    @property
    def position(self) -> int:
        return self._gate.position(self._waiter)

    def refuse(self, error: ApiError) -> None:
        self._waiter.refusal = error
        self._waiter.wake()
