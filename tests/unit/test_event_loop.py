"""The event loop, and code that waits: on a thread, and as a task of a loop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

import pytest

from mistral_api.event_loop import waiting
from mistral_api.event_loop.loop import EventLoop
from tests.support.event_loops import SECONDS, run_as_task, running_loop
from tests.support.processes import wait_for

T = TypeVar("T")
Run = Callable[[Callable[[], T]], T]

_name: ContextVar[str] = ContextVar("name", default="nobody")


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with running_loop() as running:
        yield running


@pytest.fixture(params=["thread", "task"])
def run(request: pytest.FixtureRequest, loop: EventLoop) -> Run[object]:
    """Runs a function on this thread, or as a task."""
    return (lambda function: function()) if request.param == "thread" else lambda function: run_as_task(loop, function)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_wait_ends_when_bytes_come(run: Run[object], pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    threading.Timer(0.02, theirs.send, [b"x"]).start()

    def read() -> bytes:
        assert waiting.readable(ours, SECONDS)
        return ours.recv(10)

    assert run(read) == b"x"


def test_a_wait_ends_when_the_peer_closes(run: Run[object], pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert run(lambda: waiting.readable(ours, SECONDS)) is True
    assert ours.recv(1) == b""


def test_a_wait_ends_when_another_thread_shuts_the_socket_down(
    run: Run[object], pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    threading.Timer(0.02, ours.shutdown, [socket.SHUT_RDWR]).start()
    assert run(lambda: waiting.readable(ours, SECONDS)) is True


def test_a_wait_ends_at_its_deadline(run: Run[object], pair: tuple[socket.socket, socket.socket]) -> None:
    assert run(lambda: waiting.readable(pair[0], 0.01)) is False


def test_a_full_socket_is_waited_for_until_it_is_read(
    run: Run[object], pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair

    def fill() -> int:
        sent = 0
        while True:
            try:
                sent += ours.send(bytes(65536))
            except BlockingIOError:
                return sent

    sent = run(fill)
    assert run(lambda: waiting.writable(ours, 0.01)) is False

    def empty() -> None:
        left = sent
        while isinstance(left, int) and left > 0:
            left -= len(theirs.recv(1 << 20))

    emptying = threading.Timer(0.02, empty)
    emptying.start()
    assert run(lambda: waiting.writable(ours, SECONDS)) is True
    emptying.join(SECONDS)


def test_sleeping_takes_its_time(run: Run[object]) -> None:
    began = time.monotonic()
    run(lambda: waiting.sleep(0.1))
    assert time.monotonic() - began >= 0.05  # the clock of Windows goes by steps of 16 ms


def test_a_signal_wakes_those_who_wait(run: Run[object]) -> None:
    signal = waiting.Signal()
    threading.Timer(0.02, signal.set).start()
    assert run(lambda: signal.wait(SECONDS)) is True
    assert run(lambda: signal.wait(0)) is True


def test_a_signal_that_is_not_set_is_waited_for_until_the_deadline(run: Run[object]) -> None:
    assert run(lambda: waiting.Signal().wait(0.01)) is False


def test_what_blocks_runs_on_another_thread_of_a_task_only(run: Run[object], loop: EventLoop) -> None:
    def threads() -> tuple[int, int]:
        return threading.get_ident(), waiting.aside(threading.get_ident)

    caller, beside = run_as_task(loop, threads)
    assert caller != beside
    caller, beside = threads()
    assert caller == beside


def test_what_fails_aside_fails_in_the_task(run: Run[object]) -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: waiting.aside(lambda: 1 // 0))


def test_many_tasks_wait_at_once_on_one_thread(loop: EventLoop) -> None:
    signal, ended = waiting.Signal(), threading.Semaphore(0)

    def wait() -> None:
        signal.wait(SECONDS)
        ended.release()

    before = set(threading.enumerate())
    for _ in range(500):
        loop.spawn(wait)
    run_as_task(loop, lambda: None)
    assert loop.tasks == 500
    assert not set(threading.enumerate()) - before
    signal.set()
    assert all(ended.acquire(timeout=SECONDS) for _ in range(500))


def test_a_task_that_has_much_to_do_gives_others_their_turn(loop: EventLoop) -> None:
    done = waiting.Signal()

    def work() -> int:
        rounds = 0
        while not done.is_set:
            rounds += 1
            waiting.give_turn()
        return rounds

    def end() -> None:
        waiting.sleep(0.01)
        done.set()

    loop.spawn(end)
    assert run_as_task(loop, work) > 1


def test_each_task_has_its_own_context(loop: EventLoop) -> None:
    def name_after_a_wait(name: str) -> str:
        _name.set(name)
        waiting.sleep(0.01)
        return _name.get()

    seen: list[str] = []
    loop.spawn(lambda: seen.append(name_after_a_wait("one")))
    loop.spawn(lambda: seen.append(name_after_a_wait("two")))
    wait_for(lambda: len(seen) == 2, "both tasks", SECONDS)
    assert sorted(seen) == ["one", "two"]


def test_a_task_that_fails_ends_alone(loop: EventLoop, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    loop.spawn(fail)
    assert run_as_task(loop, lambda: 3) == 3
    assert "unforeseen failure of a task" in caplog.text


def test_the_end_of_the_loop_ends_its_tasks() -> None:
    cleaned = threading.Event()

    def wait() -> None:
        try:
            waiting.Signal().wait(None)
        finally:
            waiting.sleep(0.01)
            cleaned.set()

    with running_loop() as loop:
        loop.spawn(wait)
        run_as_task(loop, lambda: None)
    assert cleaned.is_set()


def test_a_descriptor_that_is_used_again_is_watched_anew(loop: EventLoop) -> None:
    def use_one() -> int:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.send(b"x")
        assert waiting.readable(ours, SECONDS)
        number = ours.fileno()
        waiting.forget(ours)
        ours.close()
        theirs.close()
        return number

    numbers = run_as_task(loop, lambda: [use_one() for _ in range(5)])
    assert len(set(numbers)) < len(numbers)


def test_timers_come_in_their_order_and_can_be_cancelled(loop: EventLoop) -> None:
    seen: list[str] = []
    last = waiting.Signal()

    def set_timers() -> None:
        loop.call_later(0.02, last.set)
        loop.call_later(0.015, lambda: seen.append("second"))
        loop.call_later(0.005, lambda: seen.append("first"))
        loop.call_later(0.01, lambda: seen.append("never")).cancel()
        for _ in range(1000):
            loop.call_later(60, lambda: None).cancel()

    run_as_task(loop, set_timers)
    assert last.wait(SECONDS)
    assert seen == ["first", "second"]
