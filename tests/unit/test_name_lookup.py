"""Names are resolved beside everything else: once for all who wait, with a deadline, and a call can end its waiting."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from mistral_api.event_loop import waiting
from mistral_api.event_loop.loop import ASIDE_THREADS, EventLoop
from mistral_api.upstream import name_lookup
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connection_errors import HostNotFound, NotConnected
from mistral_api.upstream.name_lookup import NameLookup
from tests.support.event_loops import run_as_task, running_loop
from tests.support.processes import wait_for

FOUND = [(socket.AF_INET, ("192.0.2.1", 80))]
SECONDS = 10.0


class Resolver:
    """A resolver that answers once it is told to."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked: list[str] = []
        self.fails = False

    def getaddrinfo(self, host: str, port: int, *, type: int, flags: int = 0) -> list[object]:
        if flags:
            raise socket.gaierror("no address")
        self.asked.append(threading.current_thread().name)
        self.may_answer.wait(SECONDS)
        if self.fails:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, type, 0, "", ("192.0.2.1", port))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.may_answer.set()


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with running_loop() as running:
        yield running


def _spawn(loop: EventLoop, names: NameLookup, call: UpstreamCall, seconds: float) -> Future[object]:
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(names.addresses(call, seconds))
        except Exception as error:  # noqa: BLE001 - raised again by the future
            future.set_exception(error)

    loop.spawn(run)
    return future


def test_one_question_is_asked_for_all_who_wait_and_holds_up_nobody_else(resolver: Resolver, loop: EventLoop) -> None:
    names = NameLookup("engine.example", 80)
    waits = [_spawn(loop, names, UpstreamCall(), SECONDS) for _ in range(5 * ASIDE_THREADS)]
    wait_for(lambda: bool(resolver.asked), "a question")
    assert run_as_task(loop, lambda: waiting.aside(lambda: 7)) == 7
    resolver.may_answer.set()
    assert [wait.result(SECONDS) for wait in waits] == [FOUND] * len(waits)
    assert names.addresses(UpstreamCall(), SECONDS) == FOUND
    assert resolver.asked == ["engine-host-lookup"]
    names.forget()
    assert names.addresses(UpstreamCall(), SECONDS) == FOUND
    assert len(resolver.asked) == 2


def test_a_resolver_that_hangs_meets_the_deadline_and_a_call_that_ends_waits_no_longer(
    resolver: Resolver, loop: EventLoop
) -> None:
    names, call = NameLookup("engine.example", 80), UpstreamCall()
    left = _spawn(loop, names, call, SECONDS)
    with pytest.raises(NotConnected) as late:
        names.addresses(UpstreamCall(), 0.01)
    assert isinstance(late.value.__cause__, TimeoutError)
    call.client_left()
    with pytest.raises(NotConnected):
        left.result(SECONDS)
    assert len(resolver.asked) == 1


def test_a_failure_is_for_all_who_wait_and_is_not_remembered(resolver: Resolver, loop: EventLoop) -> None:
    names = NameLookup("engine.example", 80)
    resolver.fails = True
    resolver.may_answer.set()
    with pytest.raises(HostNotFound):
        names.addresses(UpstreamCall(), SECONDS)
    resolver.fails = False
    assert run_as_task(loop, lambda: names.addresses(UpstreamCall(), SECONDS)) == FOUND


def test_what_was_found_is_believed_for_a_while(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_lookup, "FRESH_SECONDS", 0.0)
    resolver.may_answer.set()
    names = NameLookup("engine.example", 80)
    for _ in range(2):
        assert names.addresses(UpstreamCall(), SECONDS) == FOUND
    assert len(resolver.asked) == 2


def test_an_address_needs_no_thread() -> None:
    before = set(threading.enumerate())
    assert NameLookup("127.0.0.1", 80).addresses(UpstreamCall(), SECONDS) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert not set(threading.enumerate()) - before
