"""API processes share the slots of a model server: one queue for all, and nothing is lost with one of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from mistral_api.errors import ModelUnavailable, Unavailable
from mistral_api.event_loop.loop import EventLoop
from mistral_api.ipc.siblings import Hub
from mistral_api.upstream import shared_slot_pool
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import ClientClosedRequest, context_exceeded
from mistral_api.upstream.shared_slot_pool import RemoteSlotPool, offer_slot_pool
from mistral_api.upstream.slot_pool import LINGER_SECONDS, OwnSlotPool
from mistral_api.upstream.slot_queue import Waiter
from tests.support.clock import Clock
from tests.support.event_loops import hanging, running_loop
from tests.support.peers import pairs
from tests.support.processes import wait_for
from tests.support.slots import Processes, Requests

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")


class Shared:
    """Requests of three API processes, of which the first has the pool."""

    def __init__(
        self,
        reading: EventLoop,
        tasks: EventLoop | None,
        slots: int | None,
        most_waiting: int = 4096,
        second_loop: EventLoop | None = None,
    ) -> None:
        self.processes = Processes(reading, slots, most_waiting=most_waiting, second_loop=second_loop)
        self.gates = self.processes.gates
        self.requests = Requests(self.gates[0], tasks)

    def send(self, name: str, process: int, count: int = 1, call: UpstreamCall | None = None) -> UpstreamCall:
        """Send a request of the owner whose name it begins with to a process, from 0."""
        return self.requests.send(name, count, call, gate=self.gates[process])


@pytest.fixture(scope="module")
def reading() -> Iterator[EventLoop]:
    with running_loop() as running:
        yield running


@pytest.fixture(params=["threads", "tasks"])
def tasks(request: pytest.FixtureRequest, reading: EventLoop) -> EventLoop | None:
    """The loop in which requests wait as tasks; None where each has a thread."""
    return None if request.param == "threads" else reading


@pytest.fixture
def shared(reading: EventLoop, tasks: EventLoop | None) -> Iterator[Shared]:
    made = Shared(reading, tasks, 2)
    yield made
    made.processes.close()


@pytest.fixture
def full(reading: EventLoop, tasks: EventLoop | None) -> Iterator[Shared]:
    """Two may wait."""
    made = Shared(reading, tasks, 1, most_waiting=2)
    yield made
    made.processes.close()


def test_one_owner_alone_waits_in_the_order_of_arrival_over_all_processes(shared: Shared) -> None:
    for number, process in enumerate((1, 0, 2, 1, 0, 2)):
        shared.send(f"a{number}", process)
    assert sorted(shared.requests.admitted) == ["a0", "a1"]
    assert [shared.requests.end(f"a{number}") for number in range(4)] == ["a2", "a3", "a4", "a5"]


def test_owners_take_turns_over_all_processes(shared: Shared) -> None:
    for number in range(9):
        shared.send(f"a{number}", number % 3)
    shared.send("b0", 2)
    shared.send("c0", 0)
    assert sorted([shared.requests.end("a0"), shared.requests.end("a1")]) == ["b0", "c0"]
    assert shared.requests.end("b0") == "a2"


def test_each_process_counts_its_own(shared: Shared) -> None:
    for number, process in enumerate((0, 1, 0, 1, 1, 2)):
        shared.send(f"a{number}", process)
    assert [gate.busy for gate in shared.gates] == [1, 1, 0]
    assert [gate.waiting for gate in shared.gates] == [1, 2, 1]
    assert not any(gate.idle for gate in shared.gates)
    for number in range(4):
        shared.requests.end(f"a{number}")
    assert [gate.busy + gate.waiting for gate in shared.gates] == [0, 1, 1]
    assert [gate.idle for gate in shared.gates] == [True, False, False]


def test_several_choices_take_several_slots_of_all(shared: Shared) -> None:
    shared.send("a1", 0)
    shared.send("b1", 1, count=9)
    assert shared.requests.admitted == ["a1"]
    assert shared.requests.end("a1") == "b1"
    assert shared.gates[1].busy == 2


def test_a_second_release_frees_nothing(shared: Shared) -> None:
    for name in ("a1", "a2", "b1", "b2"):
        shared.send(name, 1)
    assert shared.requests.end("a1") == "b1"
    shared.requests.releases["a1"]()
    shared.processes.settle()
    assert len(shared.requests.admitted) == 3


def test_a_process_that_ends_gives_back_its_slots_and_its_places_in_the_queue(shared: Shared) -> None:
    for name, process in (("a0", 1), ("a1", 0), ("a2", 1), ("a3", 2), ("a4", 1), ("a5", 0)):
        shared.send(name, process)
    shared.processes.outer[0].close()
    wait_for(lambda: "a3" in shared.requests.admitted, "its slot")
    wait_for(lambda: len(shared.requests.failures) == 2, "the end of its requests")
    assert shared.requests.end("a1") == "a5"
    assert (shared.gates[0].busy, shared.gates[0].waiting) == (1, 0)
    assert shared.gates[2].busy == 1


def test_tokens_of_a_process_that_ends_count_until_the_model_server_knows_of_it() -> None:
    hub, clock = Hub(), Clock()
    pool = OwnSlotPool(4, clock=clock, cache_tokens=lambda: 100)
    offer_slot_pool(hub, "main", pool)
    with pairs(1) as ((inner,), (outer,), start):
        remote = RemoteSlotPool(outer, "main", 4)
        hub.join(inner)
        start()
        remote.add(Waiter("a", 1, 60), refusable=True)
    wait_for(lambda: inner.ended, "the end of the process")
    next_one = Waiter("b", 1, 60)
    pool.add(next_one, refusable=True)
    assert not next_one.admitted
    clock.now += LINGER_SECONDS
    pool.add(Waiter("c", 1, 1), refusable=True)
    assert next_one.admitted


def test_a_process_that_ends_while_it_is_given_slots_does_not_keep_them() -> None:
    hub, late, next_one = Hub(), Waiter("a", 1), Waiter("b", 1)

    class Pool(OwnSlotPool):
        def add(self, waiter: Waiter, *, refusable: bool) -> float | None:
            seconds = super().add(waiter, refusable=refusable)
            hub.close()
            return seconds

    pool = Pool(1)
    offer_slot_pool(hub, "main", pool)
    with pairs(1) as ((inner,), (outer,), start):
        remote = RemoteSlotPool(outer, "main", 1)
        hub.join(inner)
        start()
        with pytest.raises(Unavailable):
            remote.add(late, refusable=True)
    pool.add(next_one, refusable=True)
    assert next_one.admitted


def test_without_the_first_process_all_are_refused_and_nothing_hangs(shared: Shared) -> None:
    for name, process in (("a0", 1), ("a1", 0), ("a2", 1), ("a3", 1)):
        shared.send(name, process)
    shared.processes.hub.close()
    wait_for(lambda: len(shared.requests.failures) == 2, "the refusals")
    shared.send("a4", 2)
    assert all(isinstance(failure, Unavailable) and failure.retry_after for failure in shared.requests.failures)
    assert len(shared.requests.failures) == 3
    with pytest.raises(Unavailable):
        shared.gates[2].require_room()
    assert shared.gates[2].idle
    assert not shared.gates[1].idle
    shared.requests.releases["a0"]()
    assert shared.gates[1].idle


def test_a_call_that_is_cancelled_waits_no_longer(shared: Shared) -> None:
    for name in ("a1", "a2"):
        shared.send(name, 0)
    call = shared.send("b1", 1)
    shared.send("b2", 2)
    call.cancel("client")
    wait_for(lambda: shared.requests.failures, "the end of the wait")
    assert isinstance(shared.requests.failures[0], ClientClosedRequest)
    assert shared.gates[1].idle
    assert shared.requests.end("a1") == "b2"


def test_a_process_that_stops_ends_its_own_waits_alone(shared: Shared) -> None:
    for name, process in (("a1", 0), ("a2", 0), ("b1", 1), ("b2", 2), ("b3", 0)):
        shared.send(name, process)
    for process in (0, 1):
        shared.gates[process].close()
    wait_for(lambda: len(shared.requests.failures) == 2, "the end of the waits")
    assert shared.requests.end("a1") == "b2"
    shared.send("b4", 1)
    assert len(shared.requests.failures) == 3


def test_those_that_wait_in_all_processes_are_counted_together(full: Shared) -> None:
    for name, process in (("a1", 0), ("a2", 1), ("b1", 2), ("b2", 1), ("c1", 0), ("c2", 2)):
        full.send(name, process)
    failures = full.requests.failures
    assert [failure.code for failure in failures] == ["overloaded"] * 3
    assert {failure.retry_after for failure in failures} == {15.0}  # three others, of five seconds each
    assert [gate.refused for gate in full.gates] == [1, 1, 1]
    for gate in full.gates:
        with pytest.raises(Unavailable):
            gate.require_room()
    full.requests.end("a1")
    for gate in full.gates:
        gate.require_room()


@pytest.mark.parametrize("reason", ["promised", "answered"])
def test_what_was_promised_is_never_one_too_many(full: Shared, reason: str) -> None:
    for name, process in (("a1", 0), ("a2", 1), ("a3", 2)):
        full.send(name, process)
    call = UpstreamCall()
    setattr(call, reason, True)
    full.send("a4", 1, call=call)
    assert full.gates[1].waiting == 2


def test_a_slot_is_free_for_others_once_its_client_has_the_answer(full: Shared) -> None:
    """Whoever would be refused is not, where another process has said already that one has ended."""
    for name in ("a0", "a1", "a2"):
        full.send(name, 1)
    for number in range(3, 30):
        wait_for(lambda: f"a{number - 3}" in full.requests.releases, "its turn")  # noqa: B023 - it ends here
        full.requests.releases[f"a{number - 3}"]()
        full.send(f"a{number}", number % 2 * 2)
    assert not full.requests.failures


def test_positions_are_those_in_the_queue_of_all(shared: Shared) -> None:
    calls = [shared.send(f"a{number}", number % 3) for number in range(6)]
    calls.append(shared.send("b0", 1))
    assert [call.queue_position for call in calls] == [0, 0, 1, 2, 3, 4, 2]
    places = [call.place for call in calls]
    assert [None if place is None else place.position for place in places] == [None, None, 2, 3, 4, 5, 1]


def test_who_has_waited_as_long_as_one_that_met_no_model_server_is_refused_with_it(shared: Shared) -> None:
    for name, process in (("a1", 0), ("a2", 1), ("b1", 0), ("b2", 1), ("b3", 2)):
        shared.send(name, process)
    shared.gates[1].give_up(ModelUnavailable("It does not come.", code="model_loading", retry_after=7), 0.0)
    wait_for(lambda: len(shared.requests.failures) == 3, "the refusals")
    assert {(type(each), each.message, each.code, each.retry_after) for each in shared.requests.failures} == {
        (ModelUnavailable, "It does not come.", "model_loading", 7)
    }
    shared.gates[0].give_up(ModelUnavailable("It does not come."), 60.0)
    shared.send("b4", 2)
    assert shared.requests.end("a2") == "b4"


def test_a_request_that_is_refused_in_its_place_waits_no_longer(shared: Shared) -> None:
    error = context_exceeded(100, 200)
    for name in ("a1", "a2"):
        shared.send(name, 0)
    place = shared.send("b1", 1).place
    assert place is not None
    place.refuse(error)
    wait_for(lambda: shared.requests.failures, "the refusal")
    shared.processes.settle()
    assert shared.requests.failures == [error]
    assert shared.gates[1].waiting == 0
    assert shared.send("c1", 2).queue_position == 1


def test_an_unknown_number_of_slots_holds_nothing_back_below_the_bound_of_all(reading: EventLoop) -> None:
    shared = Shared(reading, None, None, most_waiting=3)
    for number in range(3):
        shared.send(f"a{number}", number)
    assert len(shared.requests.admitted) == 3
    shared.send("a3", 1)
    assert [failure.code for failure in shared.requests.failures] == ["overloaded"]
    shared.requests.releases["a0"]()
    shared.send("a4", 2)
    assert len(shared.requests.admitted) == 4
    shared.processes.close()


@pytest.fixture
def second() -> Iterator[EventLoop]:
    """The loop in which the second process reads."""
    with running_loop() as running:
        yield running


def test_a_process_that_hangs_holds_up_nobody_and_loses_no_turn(
    reading: EventLoop, second: EventLoop, tasks: EventLoop | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Shared(reading, tasks, 3, second_loop=second)
    admitted, silent = shared.requests.admitted, shared.processes.inner[0].note_silence
    for name, process in (("a0", 1), ("a1", 0), ("a2", 0), ("b1", 1), ("b2", 1), ("c1", 2)):
        shared.send(name, process)
    monkeypatch.setattr(shared_slot_pool, "TAKE_SECONDS", 0.0)
    monkeypatch.setattr(shared_slot_pool, "TAKE_BACK_SECONDS", 0.0)
    with hanging(second):
        shared.requests.releases["a1"]()  # which gives b1 its slot, and nobody hears that
        assert shared.requests.end("a2") == "c1"
        shared.send("d1", 0)
        shared.send("b3", 0)
        silent(True)
        wait_for(lambda: "d1" in admitted, "the slot that was not taken")
        assert shared.requests.end("c1") == "b3"
        silent(True)
        assert shared.gates[0].busy == 2  # a0 runs still, wherever it does
    shared.processes.settle()
    assert not {"b1", "b2"} & set(admitted)
    shared.send("b4", 0)
    silent(False)
    assert [shared.requests.end(name) for name in ("d1", "b3", "b1")] == ["b1", "b2", "b4"]
    for name in ("a0", "b2", "b4"):
        shared.requests.releases[name]()
    shared.processes.settle()
    assert all(gate.idle for gate in shared.gates)
    shared.processes.close()


def test_who_was_passed_over_may_leave_or_end(shared: Shared) -> None:
    shared.send("a1", 0)
    shared.send("a2", 0)
    call = shared.send("b1", 1)
    shared.send("b2", 1)
    shared.processes.inner[0].note_silence(True)
    assert (shared.gates[0].waiting, shared.gates[0].busy) == (0, 2)
    call.cancel("client")
    wait_for(lambda: shared.requests.failures, "the end of the wait")
    shared.processes.settle()
    shared.processes.outer[0].close()
    wait_for(lambda: len(shared.requests.failures) == 2, "the end of the other")
    wait_for(lambda: shared.processes.inner[0].ended, "the end of the process")
    shared.processes.inner[0].note_silence(False)
    shared.send("c1", 2)
    assert shared.requests.end("a1") == "c1"
    assert shared.gates[0].busy == 1


def test_who_comes_too_late_to_be_sure_asks_for_its_slot(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_slot_pool, "TAKE_SECONDS", 0.0)
    for name, process in (("a1", 1), ("a2", 1)):
        shared.send(name, process)
        wait_for(lambda: name in shared.requests.admitted, "its slot")  # noqa: B023 - it ends here
    shared.send("b1", 1)
    assert shared.requests.end("a1") == "b1"
    assert [gate.busy for gate in shared.gates] == [0, 2, 0]


def test_a_task_that_ends_while_it_asks_leaves_nothing_behind(reading: EventLoop) -> None:
    processes = Processes(reading, 1, hangs=True)

    def enter() -> None:
        processes.gates[1].enter("a", 1, UpstreamCall())

    with running_loop() as ending:
        ending.spawn(enter)
        wait_for(lambda: processes.gates[1].waiting, "the request")
    processes.go_on()
    processes.settle()
    assert all(gate.idle for gate in processes.gates)
    processes.gates[2].enter("b", 1, UpstreamCall())()
    processes.close()
