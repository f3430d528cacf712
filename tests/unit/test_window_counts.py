"""Windows of a minute: what counts, what is left, when to try again, and a storage that is away."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.errors import Unavailable
from mistral_api.security.window_counts import AWAY_SECONDS, MemoryWindows, WindowCounts, WindowsAway, WindowUsage
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock at the start of a window."""
    clock = Clock()
    clock.now = 6000.0
    return clock


@pytest.fixture
def counts(clock: Clock) -> WindowCounts:
    """Counts in memory by that clock."""
    return WindowCounts(MemoryWindows(1000, clock), clock=clock)


def test_no_more_than_the_limit_is_counted_within_a_window(counts: WindowCounts) -> None:
    assert [counts.acquire("a", 3) for _ in range(5)] == [True, True, True, False, False]
    assert counts.acquire("b", 3)
    usage = counts.usage("a", 3)
    assert (usage.current, usage.remaining) == (3, 0)


def test_the_window_before_fades_out_within_the_current_one(counts: WindowCounts, clock: Clock) -> None:
    for _ in range(10):
        counts.acquire("a", 10)
    clock.now += 59
    assert not counts.acquire("a", 10)
    clock.now += 2  # one second into the next window: 10 * 59/60 count still
    assert counts.usage("a", 10).remaining == 1
    clock.now += 29  # half of it
    assert counts.usage("a", 10).remaining == 5
    clock.now += 90
    assert counts.usage("a", 10).remaining == 10
    assert counts.usage("a", 10).reset_after == 0


def test_what_was_used_counts_beyond_the_limit(counts: WindowCounts, clock: Clock) -> None:
    counts.add("a", 250)
    usage = counts.usage("a", 100)
    assert usage.remaining == 0
    # The window ends after 60 s, and 100 of 250 are left after 60 % of the next one.
    assert usage.retry_after == pytest.approx(60 + 36, abs=0.01)
    clock.now += usage.retry_after
    assert counts.usage("a", 100).remaining == 1


@given(
    previous=st.integers(0, 500), current=st.integers(0, 500), limit=st.integers(1, 300), elapsed=st.integers(0, 59_999)
)
def test_retry_after_is_the_first_moment_at_which_something_is_left(
    previous: int, current: int, limit: int, elapsed: int
) -> None:
    clock = Clock()
    counts = WindowCounts(MemoryWindows(10, clock), clock=clock)
    clock.now = 60.0
    counts.add("a", previous)
    clock.now = 120 + elapsed / 1000
    counts.add("a", current)
    usage = counts.usage("a", limit)
    retry_after = usage.retry_after
    if usage.remaining:
        assert retry_after == 0
        return
    began = clock.now
    clock.now = began + retry_after + 0.001
    assert counts.usage("a", limit).remaining > 0
    clock.now = began + max(0.0, retry_after - 0.01)
    assert counts.usage("a", limit).remaining == 0
    assert usage.reset_after >= retry_after - 0.01


def test_more_names_than_fit_forget_those_that_rested_longest(clock: Clock) -> None:
    windows = MemoryWindows(3, clock)
    for name in ("a", "b", "c", "a", "d"):
        windows.acquire_sliding_window_entry(name, 9, 60)
    assert len(windows) == 3
    assert [windows.get_sliding_window(name, 60)[2] for name in "abcd"] == [2, 0, 1, 1]


def test_reading_remembers_no_name(clock: Clock) -> None:
    windows = MemoryWindows(3, clock)
    for number in range(100):
        windows.get_sliding_window(str(number), 60)
        windows.acquire_sliding_window_entry(str(number), 0, 60)
    assert len(windows) == 0


class _AwayStorage:
    """A storage that fails while it is away; a stand-in for Redis, of which another test has a real one."""

    def __init__(self, windows: MemoryWindows) -> None:
        self.windows = windows
        self.away = False
        self.asked = 0

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        self._ask()
        return self.windows.acquire_sliding_window_entry(key, limit, expiry, amount)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        self._ask()
        return self.windows.get_sliding_window(key, expiry)

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise WindowsAway from ConnectionError("redis://:secret@host")


def test_a_shared_storage_that_is_away_is_replaced_by_memory_and_left_alone_for_a_while(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    storage = _AwayStorage(MemoryWindows(10, clock))
    counts = WindowCounts(MemoryWindows(10, clock), storage, clock=clock)
    assert counts.acquire("a", 2)
    storage.away = True
    assert [counts.acquire("a", 2) for _ in range(4)] == [True, True, False, False]
    assert storage.asked == 2
    assert "secret" not in caplog.text
    assert "does not answer" in caplog.text
    storage.away = False
    clock.now += AWAY_SECONDS
    assert [counts.acquire("a", 2), counts.acquire("a", 2)] == [True, False]


def test_a_closed_limit_refuses_while_its_storage_is_away_but_still_counts_tokens(clock: Clock) -> None:
    storage = _AwayStorage(MemoryWindows(10, clock))
    storage.away = True
    counts = WindowCounts(MemoryWindows(10, clock), storage, fail_open=False, clock=clock)
    with pytest.raises(Unavailable) as refused:
        counts.acquire("a", 2)
    assert (refused.value.code, math.ceil(refused.value.retry_after or 0)) == ("overloaded", 2)
    with pytest.raises(Unavailable):
        counts.usage("a", 2)
    counts.add("a", 5)


def test_usage_without_any_limit_left_over_says_so() -> None:
    assert WindowUsage(5, 0, 9, 30.0).remaining == 0
    assert WindowUsage(0, 0, 0, 60.0).retry_after == 60
    assert WindowUsage(5, 9, 0, 60.0).retry_after == pytest.approx(60 * 4 / 9, abs=0.01)
