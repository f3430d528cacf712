"""The slots of a model server for all API processes of one ``bin/serve``: the first one has the pool.

In each other process :class:`RemoteSlotPool` asks the first one to add a generation, and is told when it has its slots.
What each of them has in the pool is taken back when it ends.

A process that hangs would hold up all others with slots that it does not use. So each process says of each generation
that it has taken its slots. Once it is silent (:meth:`Peer.note_silence`), what it has not taken is taken back, and
what waits there is passed over until it answers again. Within TAKE_SECONDS of the admission it need not ask; later it
asks whether it still has the slots, and sends nothing until it is told so. Both have the same clock, that of their
machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, TypedDict

from mistral_api.errors import ModelUnavailable, Unavailable
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Hub
from mistral_api.upstream.slot_pool import POSITION_SECONDS, OwnSlotPool
from mistral_api.upstream.slot_queue import Waiter

_ROOM = "slots"
# How long plenty of room is believed in.
PLENTY_SECONDS = 1.0
# Within how many seconds a process may take what it was given without asking, and after how many nobody else waits for
# that any more, once it is silent.
TAKE_SECONDS, TAKE_BACK_SECONDS = 1.0, 1.5
# Who is refused because the first process ended may come back after so many seconds: it is started again then.
RESTART_SECONDS = 5.0


class _Added(TypedDict):
    """What becomes of a generation: it has slots, or waits at ``position``, or may come back after some seconds.

    ``take_until``: when it has to have taken its slots; None while it waits. ``crowd``: see :class:`Waiter`.
    ``plenty``: whether many more may wait.
    """

    take_until: float | None
    crowd: int
    position: int
    retry_after: float | None
    plenty: bool


def slots_unavailable() -> Unavailable:
    """Return what a request is refused with while the first process does not answer."""
    return Unavailable(
        "The process that shares out the slots of the model server has ended, or does not answer.",
        code="overloaded",
        retry_after=RESTART_SECONDS,
    )


class RemoteSlotPool:
    """The slots in the memory of the first process (:class:`mistral_api.upstream.slot_pool.SlotPool`)."""

    def __init__(
        self, first: Peer, name: str, size: int | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``name``: of the model server. To be made before ``first`` is started."""
        self.size = size
        self._first = first
        self._prefix = f"{_ROOM}.{name}"
        self._clock = clock
        self._numbers = count(1)
        # Those that wait and those that have slots, by their numbers.
        self._waiters: dict[int, Waiter] = {}
        self._plenty_until = self._positions_until = float("-inf")
        self._lock = threading.Lock()
        first.handle(f"{self._prefix}.admitted", self._note_admission)
        first.handle(f"{self._prefix}.refused", self._note_refusal)
        first.on_end(self._note_end)

    @property
    def busy(self) -> int:
        return sum(waiter.count for waiter in self._all() if waiter.admitted)

    @property
    def waiting(self) -> int:
        return sum(waiter.waits for waiter in self._all())

    def add(self, waiter: Waiter, *, refusable: bool) -> float | None:
        waiter.number = next(self._numbers)
        self._waiters[waiter.number] = waiter
        try:
            added: _Added = self._ask("add", waiter.number, waiter.owner, waiter.count, refusable, waiter.tokens)
        except BaseException:
            self.leave(waiter)
            raise
        self._plenty_until = self._clock() + PLENTY_SECONDS if added["plenty"] else float("-inf")
        if added["retry_after"] is not None:
            self._waiters.pop(waiter.number, None)
            return added["retry_after"]
        waiter.position = added["position"]
        if added["take_until"] is not None:  # else it may have been told of meanwhile
            self._note_admission(waiter.number, added["take_until"], added["crowd"])
        return None

    def leave(self, waiter: Waiter) -> None:
        self._take_back("leave", waiter)

    def release(self, waiter: Waiter, *, cut_off: bool = False) -> None:
        self._take_back("cut_off" if cut_off else "release", waiter)

    def seconds_until_room(self) -> float | None:
        """See :class:`SlotPool`. Nobody is asked where there was plenty of room a moment ago."""
        if self._clock() < self._plenty_until:
            return None
        seconds, plenty = self._ask("room")
        if plenty:
            self._plenty_until = self._clock() + PLENTY_SECONDS
        return None if seconds is None else float(seconds)

    def catch_up(self) -> None:
        """Have the first process hear what all others have said until now. Raises Unavailable."""
        self._ask("catch_up")

    def position(self, waiter: Waiter) -> int:
        with self._lock:
            is_stale = self._clock() >= self._positions_until
            if is_stale:
                self._positions_until = self._clock() + POSITION_SECONDS
        if is_stale:
            self._look_at_positions()
        return waiter.position

    def _look_at_positions(self) -> None:
        try:
            positions: list[tuple[int, int]] = self._first.call(f"{self._prefix}.positions")
        except PeerGone:  # those that wait are told
            return
        for number, position in positions:
            waiter = self._waiters.get(number)
            if waiter is not None:
                waiter.position = position

    def give_up(self, error: ModelUnavailable, seconds: float) -> None:
        self._first.tell(f"{self._prefix}.give_up", error.message, error.code, error.retry_after, seconds)

    def wake_all(self) -> None:
        for waiter in self._all():
            if waiter.waits:
                waiter.wake()

    def note_small(self, waiter: Waiter) -> None:
        self._first.tell(f"{self._prefix}.note_small", waiter.number)

    def _all(self) -> list[Waiter]:
        return list(self._waiters.copy().values())

    def _ask(self, what: str, *arguments: object) -> Any:
        try:
            return self._first.call(f"{self._prefix}.{what}", *arguments)
        except PeerGone as error:
            raise slots_unavailable() from error

    def _take_back(self, how: str, waiter: Waiter) -> None:
        if self._waiters.pop(waiter.number, None) is not None:
            waiter.ended = True
            self._first.tell(f"{self._prefix}.{how}", waiter.number)

    def _note_admission(self, number: int, take_until: float | None, crowd: int) -> None:
        """Take slots, or ask for them where it is too late to be sure of them. None: they are certain."""
        waiter = self._waiters.get(number)
        if waiter is None:  # it has just left
            return
        if take_until is not None and self._clock() >= take_until:
            self._first.tell(f"{self._prefix}.take", number)
            return
        waiter.admitted, waiter.crowd = True, crowd
        waiter.wake()
        if take_until is not None:
            self._first.tell(f"{self._prefix}.taken", number)

    def _note_refusal(self, number: int, message: str, code: str | None, retry_after: float) -> None:
        waiter = self._waiters.get(number)
        if waiter is not None:
            waiter.refusal = ModelUnavailable(message, code=code, retry_after=retry_after)
            waiter.wake()

    def _note_end(self) -> None:
        for waiter in self._all():
            if waiter.waits:
                waiter.refusal = slots_unavailable()
                waiter.wake()


class _RemoteWaiter(Waiter):
    """A generation of another process: that process is told when it has its slots, or is refused."""

    __slots__ = ("_key", "_peer", "_prefix", "taken")

    def __init__(self, owner: str, need: tuple[int, int], peer: Peer, prefix: str, key: int) -> None:
        """``need``: how many slots and how many tokens it takes. ``key``: its number in the other process."""
        super().__init__(owner, *need)
        self._peer, self._prefix, self._key = peer, prefix, key
        # Whether the other process is known to have taken its slots.
        self.taken = False

    @property
    def take_until(self) -> float:
        """Until when the other process may take its slots without asking."""
        return self.began + TAKE_SECONDS

    def wake(self) -> None:
        refusal = self.refusal
        if self.admitted:
            self._peer.tell(f"{self._prefix}.admitted", self._key, self.take_until, self.crowd)
        elif refusal is not None:
            self._peer.tell(f"{self._prefix}.refused", self._key, refusal.message, refusal.code, refusal.retry_after)


class _RemoteGenerations:
    """What one other process has in the pool, and does there, until it ends."""

    def __init__(self, hub: Hub, peer: Peer, prefix: str, pool: OwnSlotPool, clock: Callable[[], float]) -> None:
        self._peer, self._prefix, self._pool, self._clock = peer, prefix, pool, clock
        # By the numbers that the other process gives them.
        self._waiters: dict[int, _RemoteWaiter] = {}
        peer.handle(f"{prefix}.add", self._add)
        peer.handle(f"{prefix}.take", self._take)
        peer.handle(f"{prefix}.taken", self._note_taken)
        peer.handle(f"{prefix}.leave", self._leave)
        peer.handle(f"{prefix}.release", self._release)
        peer.handle(f"{prefix}.cut_off", self._cut_off)
        peer.handle(f"{prefix}.note_small", self._note_small)
        peer.handle(f"{prefix}.room", lambda: (pool.seconds_until_room(), pool.has_plenty))
        peer.handle(f"{prefix}.positions", self._positions)
        peer.handle(f"{prefix}.give_up", self._give_up)
        peer.handle(f"{prefix}.catch_up", hub.catch_up, waits=True)
        peer.on_silence(self._note_silence)
        peer.on_end(self._leave_all)

    def _add(self, key: int, owner: str, slots: int, refusable: bool, tokens: int) -> _Added:
        waiter = _RemoteWaiter(owner, (slots, tokens), self._peer, self._prefix, key)
        waiter.arrived = self._clock()
        retry_after = self._pool.add(waiter, refusable=refusable)
        if retry_after is None:
            # Not before: the pool would not count it, and subtract it.
            self._pool.remote.add(waiter)
            self._waiters[key] = waiter
            if self._peer.ended:  # what it had may have been taken back already
                self._leave_all()
        return {
            "take_until": waiter.take_until if waiter.admitted else None,
            "crowd": waiter.crowd,
            "position": waiter.position,
            "retry_after": retry_after,
            "plenty": self._pool.has_plenty,
        }

    def _take(self, key: int) -> None:
        """Let a generation have its slots for certain, unless they were taken back: then it has another turn."""
        waiter = self._waiters.get(key)
        if waiter is not None and waiter.admitted:
            waiter.taken = True
            self._peer.tell(f"{self._prefix}.admitted", key, None, waiter.crowd)

    def _note_taken(self, key: int) -> None:
        waiter = self._waiters.get(key)
        if waiter is not None:
            waiter.taken = True

    def _note_silence(self, silent: bool) -> None:
        waiters = self._waiters.copy().values()
        if silent:
            self._pool.pass_over([waiter for waiter in waiters if not waiter.taken], TAKE_BACK_SECONDS)
        else:
            self._pool.take_up(waiters)

    def _leave(self, key: int) -> None:
        self._take_back(key, self._pool.leave)

    def _release(self, key: int) -> None:
        self._take_back(key, self._pool.release)

    def _cut_off(self, key: int) -> None:
        self._take_back(key, partial(self._pool.release, cut_off=True))

    def _note_small(self, key: int) -> None:
        waiter = self._waiters.get(key)
        if waiter is not None:
            self._pool.note_small(waiter)

    def _take_back(self, key: int, give_back: Callable[[Waiter], None]) -> None:
        waiter = self._waiters.pop(key, None)
        if waiter is not None:  # else it was refused
            give_back(waiter)
            self._pool.remote.discard(waiter)

    def _leave_all(self) -> None:
        """Take back all that a process had which has ended: the model server does not know yet that it has."""
        for key in self._waiters.copy():
            self._cut_off(key)

    def _positions(self) -> list[tuple[int, int]]:
        waiters = self._waiters.copy().items()
        return [(key, self._pool.position(waiter)) for key, waiter in waiters if waiter.waits]

    def _give_up(self, message: str, code: str | None, retry_after: float | None, seconds: float) -> None:
        self._pool.give_up(ModelUnavailable(message, code=code, retry_after=retry_after or 1), seconds)


def offer_slot_pool(hub: Hub, name: str, pool: OwnSlotPool, clock: Callable[[], float] = time.monotonic) -> None:
    """Let the other processes use the pool of a model server (``name``). ``clock``: that of the pool."""

    def offer(peer: Peer) -> None:
        _RemoteGenerations(hub, peer, f"{_ROOM}.{name}", pool, clock)  # the peer keeps it

    hub.offer(offer)
