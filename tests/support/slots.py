"""Slots of a model server, for tests: gates, what waits there, and API processes that share them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial

from mistral_api.errors import ApiError
from mistral_api.event_loop.loop import EventLoop
from mistral_api.ipc.peer import Peer
from mistral_api.ipc.siblings import Hub, Siblings
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.shared_slots import SharedSlots, Sharing
from mistral_api.upstream.slot_gate import SlotGate
from mistral_api.upstream.slot_owners import SlotOwners
from mistral_api.upstream.slot_pool import OwnSlotPool
from tests.support.event_loops import run_as_task
from tests.support.processes import wait_for


def own_gate(
    slots: int | None,
    longest_wait: float,
    *,
    most_waiting: int = 4096,
    clock: Callable[[], float] = time.monotonic,
) -> SlotGate:
    """Return a gate to the slots of this process alone."""
    return SlotGate(OwnSlotPool(slots, most_waiting=most_waiting, clock=clock), longest_wait, clock=clock)


class Requests:
    """Requests that wait at a gate, each on a thread of its own, or as a task of a loop."""

    def __init__(self, gate: SlotGate, loop: EventLoop | None = None) -> None:
        self.gate = gate
        self.admitted: list[str] = []
        self.releases: dict[str, Callable[[], None]] = {}
        self.failures: list[ApiError] = []
        self._loop = loop

    def send(
        self, name: str, count: int = 1, call: UpstreamCall | None = None, *, gate: SlotGate | None = None
    ) -> UpstreamCall:
        """Send a request of the owner whose name it begins with; return once it waits, is admitted or has failed.

        ``gate``: where it is another one.
        """
        call, at = call or UpstreamCall(), gate or self.gate

        def enter() -> None:
            try:
                release = at.enter(name[0], count, call)
            except ApiError as error:
                self.failures.append(error)
                return
            self.releases[name] = release
            self.admitted.append(name)

        failed = len(self.failures)
        if self._loop is None:
            threading.Thread(target=enter, daemon=True).start()
        else:
            self._loop.spawn(enter)
        wait_for(
            lambda: name in self.admitted or call.place is not None or len(self.failures) > failed,
            f"{name} at the gate",
        )
        return call

    def end(self, name: str) -> str:
        """End a request. Return the one that is admitted then."""
        before = len(self.admitted)
        self.releases[name]()
        wait_for(lambda: len(self.admitted) > before, "another request")
        return self.admitted[-1]


class Processes:
    """API processes that share the slots of one model server, all in this one: the first, and two others.

    They speak with each other as real ones do, and read in one event loop.
    """

    def __init__(
        self,
        loop: EventLoop,
        slots: int | None,
        *,
        most_waiting: int = 4096,
        hangs: bool = False,
        second_loop: EventLoop | None = None,
    ) -> None:
        """``hangs``: the first process reads nothing until :meth:`go_on`. ``second_loop``: where the second reads."""
        self._loop = loop
        self.hub = Hub()
        self.several_owners = True
        # What tells one process of the model server from the next, as each API process knows it.
        self.model_server = ["1", "1", "1"]
        self.has_prompt_cache = False
        pairs = [socket.socketpair() for _ in range(2)]
        # The ways of the first process to the others, and theirs to it.
        self.inner = [Peer(pair[0], f"process {number}") for number, pair in enumerate(pairs, start=2)]
        self.outer = [Peer(pair[1], "the first process") for pair in pairs]
        self.gates: list[SlotGate] = []
        self.owners: list[SlotOwners] = []
        for siblings in (Siblings(hub=self.hub), *(Siblings(first=peer) for peer in self.outer)):
            shared = SharedSlots("main", slots, Sharing(lambda: self.several_owners, lambda: False, siblings))
            process = partial(self.model_server.__getitem__, len(self.gates))
            self.owners.append(shared.owners(process, lambda: self.has_prompt_cache))
            self.gates.append(shared.gate(30, most_waiting))
        for peer in self.inner:
            self.hub.join(peer)
        self.outer[0].start(second_loop or loop)
        self.outer[1].start(loop)
        if not hangs:
            self.go_on()

    def go_on(self) -> None:
        """Have the first process do what the others ask."""
        for peer in self.inner:
            peer.start(self._loop)

    def settle(self) -> None:
        """Let all that was told be heard, and all tasks go on that can."""
        for _ in range(5):
            for peer in (*self.inner, *self.outer):
                peer.catch_up()
            run_as_task(self._loop, lambda: None)

    def close(self) -> None:
        """End all processes."""
        for peer in (*self.inner, *self.outer):
            peer.close()
        run_as_task(self._loop, lambda: None)
