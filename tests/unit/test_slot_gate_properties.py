"""Whatever comes, ends and leaves at the gate: it keeps to the slots and to the order, and everybody has a turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_api.errors import ApiError
from mistral_api.event_loop.loop import EventLoop
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.slot_gate import SlotGate
from tests.support.event_loops import run_as_task, running_loop
from tests.support.slots import Processes, own_gate


class Request:
    """A generation: it waits, runs from its admission to its release, or has left."""

    def __init__(self, owner: str, count: int, process: int) -> None:
        self.owner, self.count, self.process = owner, count, process
        self.call = UpstreamCall()
        self.release: Callable[[], None] | None = None
        self.left = self.ended = False

    @property
    def waits(self) -> bool:
        return self.release is None and not self.left

    @property
    def runs(self) -> bool:
        return self.release is not None and not self.ended


class Model:
    """A gate, and what has to be true of it."""

    def __init__(self, loop: EventLoop, slots: int, gates: Sequence[SlotGate]) -> None:
        """``gates``: those of the processes that share the slots."""
        self.gates = gates
        self.slots = slots
        self.requests: list[Request] = []
        self._loop = loop

    def settle(self) -> None:
        """Let all tasks go on that can."""
        for _ in range(3):
            run_as_task(self._loop, lambda: None)

    def arrive(self, owner: str, count: int, process: int) -> None:
        request = Request(owner, count, process % len(self.gates))
        gate = self.gates[request.process]

        def enter() -> None:
            try:
                request.release = gate.enter(owner, count, request.call)
            except ApiError:
                request.left = True

        self.requests.append(request)
        self._loop.spawn(enter)

    def end(self, index: int) -> None:
        running = [request for request in self.requests if request.runs]
        if running:
            self._release(running[index % len(running)])

    def _release(self, request: Request) -> None:
        request.ended = True
        assert request.release is not None
        request.release()

    def leave(self, index: int) -> None:
        waiting = [request for request in self.requests if request.waits]
        if waiting:
            waiting[index % len(waiting)].call.cancel("client")

    def check(self, before: set[Request]) -> None:
        """``before``: those that ran before the last change."""
        running = [request for request in self.requests if request.runs]
        waiting = [request for request in self.requests if request.waits]
        held = sum(min(request.count, self.slots) for request in running)
        assert held <= self.slots
        assert sum(gate.busy for gate in self.gates) == held
        assert sum(gate.waiting for gate in self.gates) == len(waiting)
        if waiting:
            assert held + max(min(request.count, self.slots) for request in waiting) > self.slots
        self._check_order(set(running) - before, waiting, running)

    def _check_order(self, admitted: set[Request], waiting: list[Request], running: list[Request]) -> None:
        slots_of = Counter[str]()
        for request in running:
            slots_of[request.owner] += min(request.count, self.slots)
        for request in admitted:
            earlier = self.requests[: self.requests.index(request)]
            assert not any(each.waits and each.owner == request.owner for each in earlier), "overtaken by its own owner"
            own = sum(min(each.count, self.slots) for each in admitted if each.owner == request.owner)
            assert all(slots_of[request.owner] - own <= slots_of[each.owner] for each in waiting), "not its turn"


class SharedModel(Model):
    """Processes that share the slots, and what has to be true of them all together."""

    def __init__(self, loop: EventLoop, slots: int, processes: Processes) -> None:
        super().__init__(loop, slots, processes.gates)
        self._processes = processes

    def settle(self) -> None:
        self._processes.settle()

    def die(self, index: int) -> None:
        """End a process that is not the first one; what it has under way ends with it."""
        number = 1 + index % 2
        self._processes.outer[number - 1].close()
        self.settle()
        for request in self.requests:
            if request.process == number and request.runs:
                self._release(request)


ARRIVAL = st.tuples(st.just("arrive"), st.sampled_from("abc"), st.sampled_from((1, 1, 1, 2, 5)), st.integers(0, 2))
CHANGE = st.one_of(ARRIVAL, ARRIVAL, *(st.tuples(st.just(change), st.integers(0, 9)) for change in ("end", "leave")))
DEATH = st.tuples(st.just("die"), st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(slots=st.integers(1, 4), changes=st.lists(CHANGE, max_size=30))
def test_slots_are_given_in_turn_and_all_come_back(slots: int, changes: list[tuple[str, object]]) -> None:
    with running_loop() as loop:
        _change(Model(loop, slots, [own_gate(slots, 60)]), changes)


@settings(max_examples=30, deadline=None)
@given(slots=st.integers(1, 4), changes=st.lists(CHANGE | DEATH, min_size=12, max_size=30))
def test_processes_that_share_slots_have_one_queue(slots: int, changes: list[tuple[str, object]]) -> None:
    with running_loop() as loop:
        processes = Processes(loop, slots)
        _change(SharedModel(loop, slots, processes), changes)
        processes.close()


def _change(model: Model, changes: list[tuple[str, object]]) -> None:
    """Have everything happen, check the model after each change, and let all come to their end."""
    for change, *values in changes:
        before = {request for request in model.requests if request.runs}
        getattr(model, change)(*values)
        model.settle()
        model.check(before)
    for _ in range(len(model.requests)):
        model.end(0)
        model.settle()
    assert not any(request.waits or request.runs for request in model.requests), "somebody never had a turn"
    assert all(gate.idle for gate in model.gates)
