"""Generations wait for slots in turn: fair between owners, no more than may, on threads and as tasks alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mistral_api.errors import ModelTimeout, ModelUnavailable, Unavailable
from mistral_api.event_loop.loop import EventLoop
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import ClientClosedRequest, context_exceeded
from tests.support.event_loops import running_loop
from tests.support.processes import wait_for
from tests.support.slots import Requests, own_gate


@pytest.fixture(params=["threads", "tasks"])
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop | None]:
    """The event loop in which requests wait as tasks; None where each has a thread."""
    if request.param == "threads":
        yield None
        return
    with running_loop() as running:
        yield running


@pytest.fixture
def requests(loop: EventLoop | None) -> Requests:
    """Requests to a model server of two slots."""
    return Requests(own_gate(2, 30), loop)


def test_one_owner_alone_waits_in_the_order_of_arrival(loop: EventLoop | None) -> None:
    alone = Requests(own_gate(2, 30), loop)
    for number in range(5):
        alone.send(f"a{number}")
    assert sorted(alone.admitted) == ["a0", "a1"]
    assert (alone.gate.busy, alone.gate.waiting) == (2, 3)
    assert [alone.end("a0"), alone.end("a1")] == ["a2", "a3"]


def test_owners_take_turns_where_there_are_too_few_slots(requests: Requests) -> None:
    for name in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        requests.send(name)
    assert sorted(requests.admitted) == ["a1", "a2"]
    order = [requests.end("a1"), requests.end("a2")]
    assert sorted(order) == ["b1", "c1"]
    assert requests.end("b1") in ("a3", "b2")
    assert {requests.end("c1"), *requests.admitted} >= {"a3", "b2"}
    assert requests.end("a3") == "a4"


def test_owner_with_a_long_queue_does_not_delay_another(requests: Requests) -> None:
    for number in range(30):
        requests.send(f"a{number}")
    requests.send("b0")
    assert requests.end("a0") == "b0"
    assert requests.end("b0").startswith("a")


def test_several_choices_take_several_slots(requests: Requests) -> None:
    requests.send("a1")
    requests.send("b1", count=9)
    requests.send("c1", count=2)
    assert requests.admitted == ["a1"]
    assert requests.end("a1") == "b1"
    assert requests.end("b1") == "c1"


def test_a_second_release_frees_nothing(requests: Requests) -> None:
    for name in ("a1", "a2", "b1", "b2"):
        requests.send(name)
    assert requests.end("a1") == "b1"
    requests.releases["a1"]()
    assert len(requests.admitted) == 3


def test_a_call_that_is_cancelled_waits_no_longer(requests: Requests) -> None:
    for name in ("a1", "a2"):
        requests.send(name)
    call = requests.send("b1")
    requests.send("b2")
    assert requests.gate.waiting == 2
    call.cancel("client")
    wait_for(lambda: requests.failures, "the end of the wait")
    assert isinstance(requests.failures[0], ClientClosedRequest)
    assert requests.gate.waiting == 1
    assert requests.end("a1") == "b2"


def test_a_client_that_leaves_is_noticed_by_a_thread_that_waits_for_it() -> None:
    gone, requests = threading.Event(), Requests(own_gate(1, 30))
    requests.send("a1")
    requests.send("b1", call=UpstreamCall(gone.is_set))
    gone.set()
    wait_for(lambda: requests.failures, "the end of the wait")
    assert isinstance(requests.failures[0], ClientClosedRequest)


def test_a_wait_ends_after_its_time(loop: EventLoop | None) -> None:
    held = Requests(own_gate(1, 0.2), loop)
    held.send("a1")
    held.send("b1")
    wait_for(lambda: held.failures, "the end of the time")
    assert isinstance(held.failures[0], ModelTimeout)
    assert held.gate.waiting == 0


def test_all_waits_end_when_the_server_stops(requests: Requests) -> None:
    for name in ("a1", "a2", "b1", "b2"):
        requests.send(name)
    requests.gate.close()
    wait_for(lambda: len(requests.failures) == 2, "the end of the server")
    requests.send("b3")
    assert all(isinstance(failure, Unavailable) for failure in requests.failures)
    assert len(requests.failures) == 3


def test_who_has_waited_as_long_as_one_that_met_no_model_server_is_refused_with_it() -> None:
    now = [0.0]
    requests = Requests(own_gate(1, 600, clock=lambda: now[0]))
    for name in ("a1", "a2", "b1"):
        requests.send(name)
    now[0] = 20.0
    requests.send("b2")
    now[0] = 30.0
    error = ModelUnavailable("It does not come.", retry_after=7)
    requests.gate.give_up(error, 30.0)
    wait_for(lambda: len(requests.failures) == 2, "the refusals")
    assert {(type(failure), failure.message, failure.retry_after) for failure in requests.failures} == {
        (ModelUnavailable, "It does not come.", 7)
    }
    assert len({id(failure) for failure in (error, *requests.failures)}) == 3
    assert requests.end("a1") == "b2"


def test_an_unknown_number_of_slots_holds_nothing_back_below_the_bound() -> None:
    gate = own_gate(None, 1, most_waiting=6)
    releases = [gate.enter(owner, 1, UpstreamCall()) for owner in "abcabc"]
    assert gate.waiting == 0
    with pytest.raises(Unavailable) as caught:
        gate.enter("a", 1, UpstreamCall())
    assert caught.value.code == "overloaded"
    releases[0]()
    gate.enter("a", 1, UpstreamCall())


def test_one_too_many_is_refused_at_once_and_counted(loop: EventLoop | None) -> None:
    full = Requests(own_gate(1, 30, most_waiting=2), loop)
    for name in ("a1", "a2", "b1", "b2", "c1"):
        full.send(name)
    assert [failure.code for failure in full.failures] == ["overloaded"] * 2
    assert full.gate.refused == 2
    with pytest.raises(Unavailable):
        full.gate.require_room()
    full.end("a1")
    full.gate.require_room()


@pytest.mark.parametrize("reason", ["promised", "answered"])
def test_what_was_promised_and_a_further_part_of_an_answer_are_never_one_too_many(reason: str) -> None:
    gate = own_gate(1, 30, most_waiting=0)
    call = UpstreamCall()
    with pytest.raises(Unavailable):
        gate.enter("a", 1, call)
    setattr(call, reason, True)
    gate.enter("a", 1, call)()


def test_who_is_refused_is_told_how_long_the_queue_takes() -> None:
    now = [0.0]
    gate = own_gate(4, 30, most_waiting=0, clock=lambda: now[0])

    def retry_after() -> float | None:
        with pytest.raises(Unavailable) as caught:
            gate.require_room()
        return caught.value.retry_after

    def hold(seconds: float) -> None:
        call = UpstreamCall()
        call.promised = True
        release = gate.enter("a", 1, call)
        now[0] += seconds
        release()

    assert retry_after() == 1.25  # nothing is known yet
    hold(40)
    assert retry_after() == 10
    for _ in range(60):  # it has become faster
        hold(8)
    assert retry_after() == pytest.approx(2, rel=0.1)
    for _ in range(60):
        hold(0.01)
    assert retry_after() == 1
    for _ in range(60):
        hold(5000)
    assert retry_after() == 120


def test_a_longer_queue_takes_longer() -> None:
    now = [0.0]
    full = Requests(own_gate(2, 30, most_waiting=9, clock=lambda: now[0]))
    full.send("z0")
    now[0] += 4.0
    full.releases["z0"]()
    for number in range(12):
        full.send(f"a{number}")
    assert full.failures[0].retry_after == 4.0 * 10 / 2


def test_positions_count_down(loop: EventLoop | None) -> None:
    now = [0.0]
    gate = own_gate(1, 30, clock=lambda: now[0])
    requests = Requests(gate, loop)
    calls = [requests.send(f"a{number}") for number in range(4)]
    calls.append(requests.send("b0"))
    assert [call.queue_position for call in calls] == [0, 1, 2, 3, 2]

    def positions() -> list[int | None]:
        now[0] += 2.0
        return [None if call.place is None else call.place.position for call in calls]

    assert positions() == [None, 2, 3, 4, 1]  # the second owner has had none
    assert requests.end("a0") == "b0"
    assert positions() == [None, 1, 2, 3, None]
    assert requests.end("b0") == "a1"
    calls[2].cancel("client")
    wait_for(lambda: requests.failures, "the end of the wait")
    assert positions() == [None, None, None, 1, None]
    assert calls[3].queue_position == 3


def test_a_request_that_is_refused_in_its_place_waits_no_longer(loop: EventLoop | None) -> None:
    error = context_exceeded(100, 200)
    requests = Requests(own_gate(1, 30), loop)
    requests.send("a1")
    place = requests.send("b1").place
    assert place is not None
    place.refuse(error)
    wait_for(lambda: requests.failures, "the refusal")
    assert requests.failures == [error]
    assert requests.gate.waiting == 0
