"""Owners share the slots of the model server: with several of them nobody keeps the others waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from mistral_api.errors import ApiError, ModelTimeout, Unavailable
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import ClientClosedRequest
from mistral_api.upstream.slot_gate import SlotGate
from tests.support.processes import wait_for


class Requests:
    """Requests that wait at a gate, each on a thread of its own."""

    def __init__(self, gate: SlotGate) -> None:
        self.gate = gate
        self.admitted: list[str] = []
        self.releases: dict[str, Callable[[], None]] = {}
        self.failures: list[ApiError] = []

    def send(self, name: str, count: int = 1, call: UpstreamCall | None = None) -> None:
        """Send a request of the owner whose name it begins with; return once it waits, is admitted or has failed."""

        def enter() -> None:
            try:
                release = self.gate.enter(name[0], count, call or UpstreamCall())
            except ApiError as error:
                self.failures.append(error)
                return
            self.releases[name] = release
            self.admitted.append(name)

        waiting, failed = len(self.gate._waiting), len(self.failures)
        threading.Thread(target=enter, daemon=True).start()
        wait_for(
            lambda: name in self.admitted or len(self.gate._waiting) > waiting or len(self.failures) > failed,
            f"{name} at the gate",
        )

    def end(self, name: str) -> str:
        """End a request. Return the one that is admitted then."""
        before = len(self.admitted)
        self.releases[name]()
        wait_for(lambda: len(self.admitted) > before, "another request")
        return self.admitted[-1]


@pytest.fixture
def requests() -> Requests:
    """Requests to a model server of two slots, of which another owner has had one before."""
    gate = SlotGate(2, 30)
    gate.enter("z", 1, UpstreamCall())()
    return Requests(gate)


def test_one_owner_alone_is_never_held_back() -> None:
    alone = Requests(SlotGate(2, 30))
    for number in range(5):
        alone.send(f"a{number}")
    assert len(alone.admitted) == 5


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


def test_a_client_that_leaves_waits_no_longer(requests: Requests) -> None:
    gone = threading.Event()
    for name in ("a1", "a2"):
        requests.send(name)
    requests.send("b1", call=UpstreamCall(gone.is_set))
    requests.send("b2")
    gone.set()
    wait_for(lambda: requests.failures, "the end of the wait")
    assert isinstance(requests.failures[0], ClientClosedRequest)
    assert requests.end("a1") == "b2"


def test_a_wait_ends_after_its_time_and_when_the_server_stops() -> None:
    gate = SlotGate(1, 0.2)
    held = Requests(gate)
    held.send("a1")
    held.send("b1")  # the second owner is admitted no more
    wait_for(lambda: held.failures, "the end of the time")
    assert isinstance(held.failures[0], ModelTimeout)
    gate._longest_wait = 30
    held.send("b2")
    gate.close()
    wait_for(lambda: len(held.failures) == 2, "the end of the server")
    assert isinstance(held.failures[1], Unavailable)


def test_owner_who_stays_alone_has_the_server_alone_again(requests: Requests) -> None:
    for name in ("a1", "a2", "a3"):
        requests.send(name)
    assert sorted(requests.admitted) == ["a1", "a2"]
    requests.gate._shared_until = 0.0  # ten minutes later
    requests.send("a4")
    wait_for(lambda: len(requests.admitted) == 4, "all requests")


def test_an_unknown_number_of_slots_holds_nothing_back() -> None:
    gate = SlotGate(None, 1)
    for owner in "abcabc":
        gate.enter(owner, 5, UpstreamCall())
