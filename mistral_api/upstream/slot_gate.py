"""The turn of every generation at the model server's slots: fair between owners, and in a queue of a bounded length.

llama.cpp gives a slot that is free to the request that has waited longest, so an owner with many requests in flight
would keep all others waiting; and each request that waits there holds a connection, and a thread of the model server.
So no more requests are sent than there are slots. The others wait here, where that costs next to nothing: in a task not
even a thread. One more under way, to be there when a slot becomes free, gained nothing that could be measured on the
bundled engine.

Where nobody knows how many slots there are, nothing is held back, and MAX_WAITING bounds what is sent at a time.
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
from mistral_api.upstream.slot_pool import SlotPool
from mistral_api.upstream.slot_queue import Waiter

Release = Callable[[], None]


class Admission:
    """The turn of a request, until it is called at its end. Calling it again does nothing.

    ``crowd``: what all that run may need of a cache that the slots share, where idle slots may have too much beside
    that; else 0.
    """

    __slots__ = ("_call", "_pool", "_waiter", "crowd")

    def __init__(self, pool: SlotPool, waiter: Waiter, call: UpstreamCall) -> None:
        self._pool, self._waiter, self._call = pool, waiter, call
        self.crowd = waiter.crowd

    def __call__(self) -> None:
        self._pool.release(self._waiter, cut_off=self._call.cut_off)

    def note_small(self) -> None:
        """Note that no idle slot has had more than its share of the cache since the request had its turn."""
        self._pool.note_small(self._waiter)


def _tell_nobody(seconds: float) -> None:
    """Do nothing."""


def _hear_nobody() -> None:
    """Do nothing: no other process has anything to say."""


class SlotGate:
    """Has generations of this process wait for the slots of one model server.

    Safe to use from many threads, and in tasks.
    """

    def __init__(
        self,
        pool: SlotPool,
        longest_wait: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        catch_up: Callable[[], None] = _hear_nobody,
    ) -> None:
        """``longest_wait``: in seconds. ``catch_up`` hears what other processes have said of the slots until now."""
        self._pool = pool
        self._longest_wait = longest_wait
        self._clock = clock
        self._catch_up = catch_up
        self._closed = False
        self._lock = threading.Lock()
        # How many generations were refused because too many waited.
        self.refused = 0
        # Told how long each generation waited that had to, in seconds.
        self.on_wait: Callable[[float], None] = _tell_nobody

    def enter(self, owner: str, count: int, call: UpstreamCall, tokens: int = 0) -> Admission:
        """Return once a request that takes ``count`` slots may be sent. What is returned has to be called at its end.

        ``tokens``: how much of a cache that the slots share it may come to need.
        Raises what ends the call, Unavailable (``overloaded``) where too many wait, unless the client has been promised
        an answer, ModelTimeout, and what the place of the request is refused with.
        """
        pool = self._pool
        waiter = Waiter(owner, count if pool.size is None else min(count, pool.size), tokens)
        waiter.arrived = self._clock()
        if self._closed:
            raise cancelled_error("shutdown")
        refusable = not (call.promised or call.answered)
        if pool.add(waiter, refusable=refusable) is not None:
            self._add_after_all(waiter)
        if not waiter.admitted:
            self._wait(waiter, call)
        return Admission(pool, waiter, call)

    def require_room(self) -> None:
        """Raise Unavailable (``overloaded``) where a generation would be one too many."""
        if self._pool.seconds_until_room() is None:
            return
        self._catch_up()
        self._require(self._pool.seconds_until_room())

    @property
    def busy(self) -> int:
        """How many slots generations of this process have; 0 where nobody knows of slots."""
        return 0 if self._pool.size is None else self._pool.busy

    @property
    def waiting(self) -> int:
        """How many generations of this process wait for a slot."""
        return self._pool.waiting

    @property
    def idle(self) -> bool:
        """Whether no generation of this process waits, or is under way."""
        return not self._pool.busy and not self._pool.waiting

    def give_up(self, error: ModelUnavailable, seconds: float) -> None:
        """Refuse those who have waited for so long, as one was that had its turn: the model server does not come."""
        self._pool.give_up(error, seconds)

    def close(self) -> None:
        """Admit nobody of this process any more; those that wait end at once."""
        self._closed = True
        self._pool.wake_all()

    def position(self, waiter: Waiter) -> int:
        """Return the position of a request that waits, as it was a moment ago."""
        return self._pool.position(waiter)

    def _add_after_all(self, waiter: Waiter) -> None:
        """Add a request that was one too many, unless it still is after all that other processes have said."""
        self._catch_up()
        self._require(self._pool.add(waiter, refusable=True))

    def _require(self, seconds: float | None) -> None:
        """Raise Unavailable where there is no room for so many seconds."""
        if seconds is not None:
            with self._lock:
                self.refused += 1
            raise Unavailable(
                "Too many requests wait for the model server already.", code="overloaded", retry_after=seconds
            )

    def _wait(self, waiter: Waiter, call: UpstreamCall) -> None:
        """Return once a request is admitted. Raises what ends its wait."""
        began = waiter.arrived
        call.queue_position = call.queue_position or waiter.position
        call.place = _Place(self, waiter)
        try:
            with call.waking(waiter.wake):
                self._wait_until(waiter, call, began + self._longest_wait)
        except BaseException:
            self._pool.leave(waiter)
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
