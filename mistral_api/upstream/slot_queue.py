"""The generations that have slots, and those that wait for them: in order of arrival, and fair between owners.

Next is the owner with the fewest slots, and of several the one whose last request began first. What one owner has
waiting goes in the order of its arrival. Nothing here is locked: :class:`mistral_api.upstream.slot_pool.OwnSlotPool`
is.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter

from mistral_api.errors import ApiError
from mistral_api.event_loop.waiting import Signal

# So many turns that are out of date are kept.
_MOST_OUTDATED = 64


class Waiter:
    """A generation that takes ``count`` slots, from its arrival to its end.

    ``tokens``: how much of the cache that all slots share it may come to need; 0 where it needs none of it, or each
    slot has a cache of its own. ``passed``: the one that it went before, which had its turn and no room for its tokens.
    ``blocked_at``: since when such ones alone keep it waiting; ``passes``: how many went before it since. ``crowd``:
    what all that run may need, with it, where idle slots may have too much beside that when it has its turn; else 0.
    ``large``: whether it runs, and may need more than the share of its slots; ``large_ends``: how many such ones had
    ended when it was admitted.
    ``signal`` is set when it has them, or when what it waits for has changed otherwise. ``position``: how many
    generations have their turn until it has its own, as far as that was known when it was last looked at.
    """

    __slots__ = (
        "admitted",
        "arrived",
        "began",
        "blocked_at",
        "count",
        "crowd",
        "ended",
        "large",
        "large_ends",
        "number",
        "owner",
        "passed",
        "passed_over",
        "passes",
        "position",
        "refusal",
        "signal",
        "tokens",
    )

    def __init__(self, owner: str, count: int, tokens: int = 0) -> None:
        self.owner, self.count, self.tokens = owner, count, tokens
        self.passed: Waiter | None = None
        self.blocked_at: float | None = None
        self.passes = self.crowd = self.large_ends = 0
        # Whether it has got its slots; and whether it has given them back, or waits no longer.
        self.admitted = self.ended = False
        self.large = False
        # Whether it is not in the queue at present, because its process does not answer.
        self.passed_over = False
        self.number = self.position = 0
        # When it came, and when it got its slots.
        self.arrived = self.began = 0.0
        self.signal: Signal | None = None
        # What its wait ends with, where it is refused while it waits.
        self.refusal: ApiError | None = None

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return not (self.admitted or self.ended or self.passed_over)

    def wake(self) -> None:
        """Have it look at what has changed."""
        if self.signal is not None:
            self.signal.set()


class _Owner:
    """What an owner has running, in slots, and waiting, in the order of arrival."""

    __slots__ = ("last_admission", "running", "waiting")

    def __init__(self) -> None:
        self.running = self.last_admission = 0
        # A plain dictionary is slow to find its first key behind those that were deleted.
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()

    @property
    def first(self) -> Waiter:
        return next(iter(self.waiting))

    def turn(self) -> tuple[int, int, int]:
        """What decides whose turn it is: the least comes first."""
        return self.running, self.last_admission, self.first.number


class SlotQueue:
    """All generations by their owners. What is done for one takes no longer where many wait."""

    def __init__(self) -> None:
        # Owners without a generation are forgotten.
        self._owners: dict[str, _Owner] = {}
        self._waiting: dict[str, _Owner] = {}
        # The turns of the owners that wait, the least first. Some are out of date: those of each owner but the last.
        self._turns: list[tuple[int, int, int, str]] = []
        # How many owners have one generation waiting at least, how many have two, and so on.
        self._owners_with: list[int] = []
        self._arrivals = self._admissions = 0
        self._length = 0
        # Slots that are taken, and slots that are waited for.
        self.busy = self.wanted = 0
        # Tokens of the shared cache that those with slots may come to need.
        self.tokens = 0

    def __len__(self) -> int:
        """How many generations wait."""
        return self._length

    def add(self, waiter: Waiter) -> None:
        """Have a generation wait behind those of its owner."""
        self._arrivals += 1
        waiter.number = self._arrivals
        owner = self._insert(waiter)
        own = len(owner.waiting)
        # The owners take turns: of each, as many come as it is its own owner's how-many-eth.
        if own <= len(self._waiting):
            waiter.position = sum(self._owners_with[:own])
        else:
            waiter.position = sum(min(own, len(each.waiting)) for each in self._waiting.values())
        if own == 1:
            self._note_turn(waiter.owner, owner)

    def _insert(self, waiter: Waiter) -> _Owner:
        owner = self._owners.setdefault(waiter.owner, _Owner())
        self._waiting[waiter.owner] = owner
        owner.waiting[waiter] = None
        self._length += 1
        self.wanted += waiter.count
        own = len(owner.waiting)
        if own > len(self._owners_with):
            self._owners_with.append(0)
        self._owners_with[own - 1] += 1
        return owner

    def put_back(self, waiters: list[Waiter]) -> None:
        """Have generations wait again that were taken out, each where it was in the order of its owner's."""
        owners = {waiter.owner: self._insert(waiter) for waiter in waiters}
        for name, owner in owners.items():
            owner.waiting = OrderedDict.fromkeys(sorted(owner.waiting, key=attrgetter("number")))
            self._note_turn(name, owner)

    def next(self) -> Waiter | None:
        """Return the one whose turn it is, None where nobody waits."""
        while self._turns:
            *turn, name = self._turns[0]
            owner = self._waiting.get(name)
            if owner is not None and owner.turn() == tuple(turn):
                return owner.first
            heapq.heappop(self._turns)
        return None

    def following(self, most: int) -> Iterator[Waiter]:
        """Yield some that wait: of the owners whose turn comes first the first ones, ``most`` of each kind."""
        for owner in heapq.nsmallest(most, self._waiting.values(), key=_Owner.turn):
            yield from islice(owner.waiting, most)

    def admit(self, waiter: Waiter) -> None:
        """Give a generation that waits its slots."""
        self._give_slots(waiter, self._owners[waiter.owner])
        self.remove(waiter)

    def admit_first(self, waiter: Waiter) -> None:
        """Give a generation that has just arrived its slots, where nobody waits."""
        owner = self._owners.get(waiter.owner)
        if owner is None:
            owner = self._owners[waiter.owner] = _Owner()
        self._arrivals += 1
        waiter.number = self._arrivals
        self._give_slots(waiter, owner)

    def _give_slots(self, waiter: Waiter, owner: _Owner) -> None:
        self._admissions += 1
        owner.last_admission = self._admissions
        owner.running += waiter.count
        self.busy += waiter.count
        self.tokens += waiter.tokens
        waiter.admitted = True

    def remove(self, waiter: Waiter) -> None:
        """Let a generation wait no longer."""
        owner = self._owners[waiter.owner]
        self._owners_with[len(owner.waiting) - 1] -= 1
        del owner.waiting[waiter]
        self._length -= 1
        self.wanted -= waiter.count
        if not owner.waiting:
            del self._waiting[waiter.owner]
        self._note_change(waiter.owner, owner)

    def free(self, waiter: Waiter) -> None:
        """Take back the slots of a generation that has ended."""
        owner = self._owners[waiter.owner]
        self.busy -= waiter.count
        self.tokens -= waiter.tokens
        owner.running -= waiter.count
        self._note_change(waiter.owner, owner)

    def _note_change(self, name: str, owner: _Owner) -> None:
        """Note that an owner's turn may be another one now, or that it has nothing any more."""
        if owner.waiting:
            self._note_turn(name, owner)
        elif not owner.running:
            del self._owners[name]

    def _note_turn(self, name: str, owner: _Owner) -> None:
        heapq.heappush(self._turns, (*owner.turn(), name))
        if len(self._turns) > _MOST_OUTDATED + 4 * len(self._waiting):
            self._turns = [(*each.turn(), name) for name, each in self._waiting.items()]
            heapq.heapify(self._turns)

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
