"""The generations that have slots, and those that wait for them: in order of arrival, and fair between owners.

Next is the owner with the fewest slots, and of several the one whose last request began first. What one owner has
waiting goes in the order of its arrival. Nothing here is locked: :class:`mistral_api.upstream.slot_gate.SlotGate` is.
"""

from __future__ import annotations

import heapq

from mistral_api.errors import ApiError
from mistral_api.event_loop.waiting import Signal


class Waiter:
    """A generation that takes ``count`` slots, from its arrival to its end.

    ``signal`` is set when it has them, or when what it waits for has changed otherwise. ``position``: how many
    generations have their turn until it has its own, as far as that was known when it was last looked at.
    """

    __slots__ = ("admitted", "began", "count", "number", "owner", "position", "refusal", "signal")

    def __init__(self, owner: str, count: int) -> None:
        self.owner, self.count = owner, count
        self.admitted = False
        self.number = self.position = 0
        # When it got its slots.
        self.began = 0.0
        self.signal: Signal | None = None
        # What its wait ends with, where it is refused while it waits.
        self.refusal: ApiError | None = None

    def wake(self) -> None:
        """Have it look at what has changed."""
        if self.signal is not None:
            self.signal.set()


class _Owner:
    """What an owner has running, in slots, and waiting, in the order of arrival."""

    __slots__ = ("last_admission", "running", "waiting")

    def __init__(self) -> None:
        self.running = self.last_admission = 0
        self.waiting: dict[Waiter, None] = {}

    @property
    def first(self) -> Waiter:
        return next(iter(self.waiting))

    def turn(self) -> tuple[int, int, int]:
        """What decides whose turn it is: the least comes first."""
        return self.running, self.last_admission, self.first.number


class SlotQueue:
    """All generations of this process by their owners. An operation takes as long as there are owners that wait."""

    def __init__(self) -> None:
        # Owners without a generation are forgotten.
        self._owners: dict[str, _Owner] = {}
        self._waiting: dict[str, _Owner] = {}
        self._arrivals = self._admissions = 0
        self._length = 0
        # Slots that are taken, and slots that are waited for.
        self.busy = self.wanted = 0

    def __len__(self) -> int:
        """How many generations wait."""
        return self._length

    def add(self, waiter: Waiter) -> None:
        """Have a generation wait behind those of its owner."""
        owner = self._owners.setdefault(waiter.owner, _Owner())
        self._waiting[waiter.owner] = owner
        self._arrivals += 1
        waiter.number = self._arrivals
        owner.waiting[waiter] = None
        self._length += 1
        self.wanted += waiter.count
        # The owners take turns: of each come as many as it is its own owner's how-many-eth.
        own = len(owner.waiting)
        waiter.position = sum(min(own, len(each.waiting)) for each in self._waiting.values())

    def next(self) -> Waiter | None:
        """Return the one whose turn it is, None where nobody waits."""
        if len(self._waiting) > 1:
            return min(self._waiting.values(), key=_Owner.turn).first
        return next((owner.first for owner in self._waiting.values()), None)

    def admit(self, waiter: Waiter) -> None:
        """Give a generation that waits its slots."""
        self.remove(waiter, forget=False)
        owner = self._owners[waiter.owner]
        self._admissions += 1
        owner.last_admission = self._admissions
        owner.running += waiter.count
        self.busy += waiter.count
        waiter.admitted = True

    def remove(self, waiter: Waiter, *, forget: bool = True) -> None:
        """Let a generation wait no longer. ``forget``: an owner that has nothing else too."""
        owner = self._owners[waiter.owner]
        del owner.waiting[waiter]
        self._length -= 1
        self.wanted -= waiter.count
        if not owner.waiting:
            del self._waiting[waiter.owner]
        if forget:
            self._forget_idle(waiter.owner)

    def free(self, waiter: Waiter) -> None:
        """Take back the slots of a generation that has ended."""
        self.busy -= waiter.count
        self._owners[waiter.owner].running -= waiter.count
        self._forget_idle(waiter.owner)

    def _forget_idle(self, name: str) -> None:
        owner = self._owners[name]
        if not owner.running and not owner.waiting:
            del self._owners[name]

    def waiters(self) -> list[Waiter]:
        """Return all that wait."""
        return [waiter for owner in self._waiting.values() for waiter in owner.waiting]

    def number_positions(self) -> None:
        """Look at all positions anew: who would come when, if no more arrived. It takes a while where many wait."""
        turns = [(*owner.turn(), iter(owner.waiting)) for owner in self._waiting.values()]
        heapq.heapify(turns)
        position = 0
        while turns:
            running, _, number, waiters = turns[0]
            waiter = next(waiters, None)
            if waiter is None:
                heapq.heappop(turns)
                continue
            position += 1
            waiter.position = position
            heapq.heapreplace(turns, (running + waiter.count, self._admissions + position, number, waiters))
