"""How many threads of a lane answer requests at once: few, unless they block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import cast

import pytest

from mistral_api.event_loop.blocking import blocking
from mistral_api.event_loop.loop import EventLoop
from mistral_api.serving.lane import Lane

THREADS = 4
SECONDS = 10.0


class _Loop:
    """An event loop that runs only when it is told to."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        self._calls.append(function)

    def call_later(self, _seconds: float, function: Callable[[], None]) -> None:
        self._calls.append(function)

    def run(self) -> bool:
        """Call what is to be called now; return whether there was anything."""
        calls, self._calls = self._calls, []
        for call in calls:
            call()
        return bool(calls)


class _ComputingTime:
    """Stands for ``time`` in a process that computes all the time: both clocks go on alike, whenever one is read."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def monotonic(self) -> float:
        self._seconds += 1
        return self._seconds

    process_time = monotonic


class _Channel:
    """A channel whose one request waits for ``released``, and says so, or not."""

    def __init__(self, released: threading.Event, *, says_so: bool = False) -> None:
        self.begun, self.answered, self.cancelled = threading.Event(), threading.Event(), False
        self.thread = 0
        self._released = released
        self._says_so = says_so

    def service(self) -> None:
        self.thread = threading.get_ident()
        self.begun.set()
        with blocking() if self._says_so else nullcontext():
            self._released.wait(SECONDS)
        self.answered.set()

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What all requests wait for; it is set at the end at the latest."""
    released = threading.Event()
    yield released
    released.set()


@pytest.fixture
def loop() -> _Loop:
    return _Loop()


@pytest.fixture
def lane(loop: _Loop, released: threading.Event) -> Iterator[Lane]:
    lane = Lane("test", THREADS, 100, cast(EventLoop, loop), at_work=1)
    yield lane
    released.set()
    lane.close()
    lane.cancel_waiting(SECONDS)
    assert lane.threads == 0


def _add(lane: Lane, count: int, released: threading.Event, *, says_so: bool = False) -> list[_Channel]:
    channels = [_Channel(released, says_so=says_so) for _ in range(count)]
    for channel in channels:
        lane.add_task(channel)
    return channels


def test_a_burst_is_answered_by_one_thread_as_long_as_it_does_not_block(lane: Lane, released: threading.Event) -> None:
    channels = _add(lane, 20, released)
    assert channels[0].begun.wait(SECONDS)
    assert (lane.waiting, lane.threads) == (19, 1)
    released.set()
    assert all(channel.answered.wait(SECONDS) for channel in channels)
    assert len({channel.thread for channel in channels}) == 1


def test_a_thread_that_says_that_it_blocks_is_replaced_at_once(lane: Lane, released: threading.Event) -> None:
    channels = _add(lane, THREADS + 2, released, says_so=True)
    assert all(channel.begun.wait(SECONDS) for channel in channels[:THREADS])
    assert (lane.waiting, lane.threads) == (2, THREADS)
    released.set()
    assert all(channel.answered.wait(SECONDS) for channel in channels)


def test_threads_that_block_without_a_word_are_noticed(lane: Lane, loop: _Loop, released: threading.Event) -> None:
    channels = _add(lane, THREADS + 2, released)
    while lane.threads < THREADS and loop.run():
        pass
    assert all(channel.begun.wait(SECONDS) for channel in channels[:THREADS])
    assert lane.waiting == 2
    released.set()
    assert all(channel.answered.wait(SECONDS) for channel in channels)


def test_requests_that_compute_are_answered_by_fewer_threads_again(
    lane: Lane, loop: _Loop, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistral_api.serving.lane.time", _ComputingTime())
    first_may_end, rest_may_end = threading.Event(), threading.Event()
    (first,) = _add(lane, 1, first_may_end)
    second, third = _add(lane, 2, rest_may_end)
    waiting = _add(lane, 3, released)
    assert first.begun.wait(SECONDS)
    while lane.threads < 2 and loop.run():  # none was taken between two looks
        pass
    assert second.begun.wait(SECONDS)
    first_may_end.set()
    assert third.begun.wait(SECONDS)  # as long as they are two: it was taken since
    assert loop.run()
    rest_may_end.set()
    assert waiting[0].begun.wait(SECONDS)
    assert lane.waiting == 2
    released.set()
    assert all(channel.answered.wait(SECONDS) for channel in waiting)
    assert len({channel.thread for channel in waiting}) == 1


def test_the_next_burst_is_answered_by_one_thread_again(lane: Lane, loop: _Loop, released: threading.Event) -> None:
    may_end = threading.Event()
    blocking_ones = _add(lane, 2, may_end)
    while lane.threads < 2 and loop.run():
        pass
    assert all(channel.begun.wait(SECONDS) for channel in blocking_ones)
    may_end.set()
    assert all(channel.answered.wait(SECONDS) for channel in blocking_ones)
    assert loop.run()
    assert not loop.run()
    channels = _add(lane, 3, released)
    assert channels[0].begun.wait(SECONDS)
    assert lane.waiting == 2
    released.set()
    assert all(channel.answered.wait(SECONDS) for channel in channels)
    assert len({channel.thread for channel in channels}) == 1


def test_nothing_is_looked_at_while_nothing_waits(lane: Lane, loop: _Loop, released: threading.Event) -> None:
    released.set()
    (channel,) = _add(lane, 1, released)
    assert channel.answered.wait(SECONDS)
    assert not loop.run()


def test_a_request_that_fails_costs_no_thread(lane: Lane, released: threading.Event) -> None:
    class Failing(_Channel):
        def service(self) -> None:
            super().service()
            raise SystemExit

    released.set()
    failing = Failing(released)
    lane.add_task(failing)
    assert failing.answered.wait(SECONDS)
    (channel,) = _add(lane, 1, released)
    assert channel.answered.wait(SECONDS)
    assert lane.threads == 1


def test_what_waits_when_a_lane_closes_is_cancelled(lane: Lane, released: threading.Event) -> None:
    first, second = _add(lane, 2, released)
    assert first.begun.wait(SECONDS)
    lane.close()
    released.set()
    lane.cancel_waiting(SECONDS)
    assert first.answered.is_set()
    assert second.cancelled
    assert not second.begun.is_set()
