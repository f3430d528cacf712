"""The slots of a model server: which generations have them, which wait for them, and how long that takes.

Where the slots share one KV cache, llama.cpp ends all requests that run when it is full (``update_slots`` in
tools/server/server-context.cpp: "Context size has been exceeded"). So a generation has its turn only when there is room
in the cache for all tokens that it may come to need, beside those of the generations that run. One that needs much must
not wait for ever, and must not keep all others waiting: smaller ones go before it while those that ran already leave it
no room. Once they alone keep it waiting, only so many more do, and for so long. Then the slots are left free for it.

They are in the memory of one process (:class:`OwnSlotPool`). Where several API processes share them
(API_PROCESSES), that is the first one's, and the others have
:class:`mistral_api.upstream.shared_slot_pool.RemoteSlotPool`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from mistral_api.errors import ModelUnavailable
from mistral_api.upstream.hold_times import HoldTimes
from mistral_api.upstream.slot_queue import SlotQueue, Waiter

# Positions are looked at again after so long, when somebody asks.
POSITION_SECONDS = 1.0
# How many smaller generations go before one that has its turn, and would have room without them, for each slot that
# there is; and for how long they do so, in seconds.
PASSES_PER_SLOT, PASS_SECONDS = 4, 10.0
# Of so many owners so many generations are looked at for one that is small enough.
MOST_LOOKED_AT = 8
# llama.cpp notices within a second, or after the batch that it computes, that nobody reads an answer any more. The
# tokens of a generation that was cut off count for so long after it.
LINGER_SECONDS = 3.0


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

    def release(self, waiter: Waiter, *, cut_off: bool = False) -> None:
        """Take back the slots of a generation that has ended. Later calls do nothing.

        ``cut_off``: the model server may not know yet that it has.
        """

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

    def note_small(self, waiter: Waiter) -> None:
        """Note that no idle slot has more than its share of a cache that all share.

        ``waiter``: the generation that has looked at them since it was admitted.
        """


class OwnSlotPool:
    """The slots in the memory of this process (:class:`SlotPool`)."""

    def __init__(
        self,
        size: int | None,
        *,
        most_waiting: int = 4096,
        clock: Callable[[], float] = time.monotonic,
        cache_tokens: Callable[[], int | None] = lambda: None,
    ) -> None:
        """``most_waiting``: how many may wait; where nobody knows of slots, how many are sent at a time.
        ``cache_tokens`` returns the tokens of the cache that the slots share, None where each has its own."""
        self.size = size
        self._cache_tokens = cache_tokens
        # The tokens of those that were cut off, and until when they count.
        self._lingering: deque[tuple[float, int]] = deque()
        # Whether an idle slot may have more than its share of the cache: it may have been restored. And how many
        # generations run that may need more, and have ended.
        self._has_large = True
        self._large = self._large_ends = 0
        # The one that had its turn, and waits for room in the cache; and the tokens of those that went before it and
        # run.
        self._blocked: Waiter | None = None
        self._passed_tokens = 0
        self._timer: threading.Timer | None = None
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
            if not len(queue) and self._has_slots(waiter) and self._has_cache(waiter):
                queue.admit_first(waiter)
                self._note_admission(waiter)
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

    def release(self, waiter: Waiter, *, cut_off: bool = False) -> None:
        with self._lock:
            if waiter.ended:
                return
            waiter.ended = True
            if waiter.admitted:  # else it was passed over, and ran all the same
                self._hold_times.note(self._clock() - waiter.began)
                if cut_off and waiter.tokens:
                    self._lingering.append((self._clock() + LINGER_SECONDS, waiter.tokens))
            self._take_out(waiter)
            admitted = self._admit()
        _wake(admitted)

    def _take_out(self, waiter: Waiter) -> None:
        """Take back what a generation has, its slots or its place in the queue. The lock is held."""
        if waiter.admitted:
            if waiter.large:
                waiter.large, self._has_large = False, True
                self._large -= 1
                self._large_ends += 1
            if waiter.passed is not None and waiter.passed is self._blocked:
                self._passed_tokens -= waiter.tokens
            waiter.passed = None
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
        admitted: list[Waiter] = []
        while (waiter := self._next()) is not None and self._has_slots(waiter):
            if not self._has_cache(waiter):
                self._wait_for_lingering()
                passing = self._passing(waiter)
                if passing is None:
                    break
                waiter = passing
            self._queue.admit(waiter)
            self._note_admission(waiter)
            admitted.append(waiter)
        return admitted

    def _next(self) -> Waiter | None:
        """Return the one whose turn it is, None where nobody waits. The lock is held.

        One that has had its turn keeps it, though owners come who have fewer slots: they would never leave it room.
        """
        if self._blocked is not None and self._blocked.waits:
            return self._blocked
        self._blocked, self._passed_tokens = None, 0
        return self._queue.next()

    def _note_admission(self, waiter: Waiter) -> None:
        waiter.began = self._clock()
        size = self._cache_tokens() if waiter.tokens else None
        if size is None:
            return
        waiter.large = waiter.tokens > size // (self.size or 1) * waiter.count
        waiter.large_ends = self._large_ends
        self._large += waiter.large
        if self._has_large or self._large:
            waiter.crowd = self._queue.tokens + sum(tokens for _, tokens in self._lingering)

    def note_small(self, waiter: Waiter) -> None:
        with self._lock:
            # Else one has ended since which ran still when the slots were looked at.
            if waiter.large_ends == self._large_ends:
                self._has_large = False

    def _passing(self, blocked: Waiter) -> Waiter | None:
        """Return the one that goes before a generation which has its turn and no room in the cache. The lock is held.

        None: there is none that is small enough, or enough of them have gone before.
        """
        self._blocked = blocked
        at_their_cost = self._has_room(blocked, beside=self._queue.tokens - self._passed_tokens)
        if at_their_cost:
            now = self._clock()
            if blocked.blocked_at is None:
                blocked.blocked_at = now
            if blocked.passes >= PASSES_PER_SLOT * (self.size or 1) or now - blocked.blocked_at >= PASS_SECONDS:
                return None
        for waiter in self._queue.following(MOST_LOOKED_AT):
            if waiter is not blocked and self._has_slots(waiter) and self._has_cache(waiter):
                blocked.passes += at_their_cost
                waiter.passed = blocked
                self._passed_tokens += waiter.tokens
                return waiter
        return None

    def _has_slots(self, waiter: Waiter) -> bool:
        return self.size is None or self._queue.busy + waiter.count <= self.size

    def _has_cache(self, waiter: Waiter) -> bool:
        """Return whether the shared cache has room for what a generation may need. The lock is held."""
        return not waiter.tokens or self._has_room(waiter, beside=self._queue.tokens)

    def _has_room(self, waiter: Waiter, *, beside: int) -> bool:
        """Return whether there is room for a generation beside others with so many tokens. The lock is held.

        One that would be alone has: the cache may have become smaller since it was asked for.
        """
        size = self._cache_tokens()
        if size is None:
            return True
        now = self._clock()
        while self._lingering and self._lingering[0][0] <= now:
            self._lingering.popleft()
        taken = beside + sum(tokens for _, tokens in self._lingering)
        return not taken or taken + waiter.tokens <= size

    def _wait_for_lingering(self) -> None:
        """Have the queue looked at again once the tokens of those that were cut off are free. The lock is held."""
        if self._lingering and self._timer is None:
            seconds = max(0.0, self._lingering[0][0] - self._clock())
            self._timer = threading.Timer(seconds, self._look_again)
            self._timer.name, self._timer.daemon = "cut-off-tokens", True
            self._timer.start()

    def _look_again(self) -> None:
        with self._lock:
            self._timer = None
            admitted = self._admit()
        _wake(admitted)


def _wake(waiters: list[Waiter]) -> None:
    """Wake them. No lock is held: to wake one of another process may end that process, which gives slots back."""
    for waiter in waiters:
        waiter.wake()
