"""Whatever comes, ends and leaves at the gate: it keeps to the slots and to the order, and everybody has a turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_api.errors import ApiError
from mistral_api.event_loop.loop import EventLoop
from mistral_api.upstream.cancellation import UpstreamCall
from tests.support.event_loops import run_as_task, running_loop
from tests.support.slots import own_gate


class Request:
    """A generation: it waits, runs from its admission to its release, or has left."""

    def __init__(self, owner: str, count: int) -> None:
        self.owner, self.count = owner, count
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

    def __init__(self, loop: EventLoop, slots: int) -> None:
        self.gate = own_gate(slots, 60)
        self.slots = slots
        self.requests: list[Request] = []
        self._loop = loop

    def settle(self) -> None:
        """Let all tasks go on that can."""
        for _ in range(3):
            run_as_task(self._loop, lambda: None)

    def arrive(self, owner: str, count: int) -> None:
        request = Request(owner, count)

        def enter() -> None:
            try:
                request.release = self.gate.enter(owner, count, request.call)
            except ApiError:
                request.left = True

        self.requests.append(request)
        self._loop.spawn(enter)

    def end(self, index: int) -> None:
        running = [request for request in self.requests if request.runs]
        if running:
            request = running[index % len(running)]
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
        assert self.gate.busy == held
        assert self.gate.waiting == len(waiting)
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


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.sampled_from("abc"), st.sampled_from((1, 1, 1, 2, 5))),
        st.tuples(st.just("end"), st.integers(0, 9), st.none()),
        st.tuples(st.just("leave"), st.integers(0, 9), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(slots=st.integers(1, 4), changes=CHANGES)
def test_slots_are_given_in_turn_and_all_come_back(slots: int, changes: list[tuple[str, object, object]]) -> None:
    with running_loop() as loop:
        model = Model(loop, slots)
        for change, *values in changes:
            before = {request for request in model.requests if request.runs}
            getattr(model, change)(*[value for value in values if value is not None])
            model.settle()
            model.check(before)
        for _ in range(len(model.requests)):
            model.end(0)
            model.settle()
        assert not any(request.waits or request.runs for request in model.requests), "somebody never had a turn"
        assert model.gate.idle
