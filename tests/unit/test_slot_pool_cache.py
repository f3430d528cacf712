"""Generations that share one KV cache: their tokens fit into it together, and large and small ones all have a turn."""

from __future__ import annotations

import pytest

from mistral_api.errors import ModelUnavailable
from mistral_api.upstream.slot_pool import LINGER_SECONDS, PASS_SECONDS, PASSES_PER_SLOT, OwnSlotPool
from mistral_api.upstream.slot_queue import Waiter
from tests.support.clock import Clock

CACHE = 32_768


class Pool:
    """A pool of four slots with one cache, on a clock that stands still."""

    def __init__(self, slots: int = 4) -> None:
        self.clock, self.cache = Clock(), CACHE
        self.pool = OwnSlotPool(slots, clock=self.clock, cache_tokens=lambda: self.cache)

    def add(self, tokens: int, owner: str = "ada", count: int = 1) -> Waiter:
        waiter = Waiter(owner, count, tokens)
        assert self.pool.add(waiter, refusable=False) is None
        return waiter

    def end(self, *waiters: Waiter, cut_off: bool = False) -> None:
        for waiter in waiters:
            self.pool.release(waiter, cut_off=cut_off)


@pytest.fixture
def pool() -> Pool:
    return Pool()


def test_each_slot_serves_its_share_and_one_request_has_all_of_the_cache(pool: Pool) -> None:
    shares = [pool.add(CACHE // 4) for _ in range(5)]
    assert [waiter.admitted for waiter in shares] == [True, True, True, True, False]
    pool.end(*shares)
    whole, small = pool.add(CACHE), pool.add(1)
    assert (whole.admitted, small.admitted) == (True, False)
    pool.end(whole)
    assert small.admitted


def test_requests_that_do_not_fit_together_run_one_after_the_other(pool: Pool) -> None:
    first, second, third = (pool.add(20_000) for _ in range(3))
    assert [each.admitted for each in (first, second, third)] == [True, False, False]
    pool.end(first)
    assert [each.admitted for each in (second, third)] == [True, False]
    pool.end(second)
    assert third.admitted


def test_small_request_passes_a_large_one_that_has_no_room_yet(pool: Pool) -> None:
    running, large, small = pool.add(10_000), pool.add(31_000), pool.add(2_000)
    assert (large.admitted, small.admitted) == (False, True)
    pool.end(running)
    assert not large.admitted
    pool.end(small)
    assert large.admitted


def _blocked_by_passers(pool: Pool) -> tuple[Waiter, Waiter]:
    """Have a large request wait for a small one alone, which went before it; return both."""
    running, large, small = pool.add(10_000), pool.add(31_000), pool.add(2_000)
    pool.end(running)
    assert (large.admitted, small.admitted) == (False, True)
    return large, small


def test_small_requests_go_on_while_what_ran_before_leaves_a_large_one_no_room(pool: Pool) -> None:
    running, large = pool.add(10_000), pool.add(30_000)
    for _ in range(2 * PASSES_PER_SLOT * 4):
        pool.clock.now += PASS_SECONDS
        small = pool.add(2_000)
        assert small.admitted
        pool.end(small)
    pool.end(running)
    assert large.admitted


def test_large_request_is_passed_so_many_times_and_no_more(pool: Pool) -> None:
    large, running = _blocked_by_passers(pool)
    passed = 0
    for _ in range(100):  # one of them always runs
        small = pool.add(2_000)
        if not small.admitted:
            break
        passed += 1
        pool.end(running)
        running = small
    assert passed == PASSES_PER_SLOT * 4
    pool.end(running)
    assert (large.admitted, small.admitted) == (True, False)


def test_large_request_is_passed_for_so_long_and_no_longer(pool: Pool) -> None:
    large, running = _blocked_by_passers(pool)
    pool.clock.now += PASS_SECONDS
    small = pool.add(2_000)
    assert not small.admitted
    pool.end(running)
    assert (large.admitted, small.admitted) == (True, False)


def test_large_request_keeps_its_turn_when_owners_come_who_have_nothing_yet(pool: Pool) -> None:
    own = pool.add(2_000, "ada")
    running, large = pool.add(2_000, "bob"), pool.add(32_000, "ada")
    pool.end(own)
    passed = 0
    for number in range(100):  # one of them always runs
        small = pool.add(2_000, f"owner {number}")
        if not small.admitted:
            break
        passed += 1
        pool.end(running)
        running = small
    assert passed == PASSES_PER_SLOT * 4 + 1  # the first one while what ran already left no room
    pool.end(running)
    assert (large.admitted, small.admitted) == (True, False)


def test_small_request_of_another_owner_passes_too(pool: Pool) -> None:
    pool.add(10_000, "ada")
    large = pool.add(30_000, "bob")
    assert pool.add(2_000, "carol").admitted
    assert not large.admitted


def test_owners_still_take_turns(pool: Pool) -> None:
    running = [pool.add(8_000, "ada") for _ in range(4)]
    waiting, other = pool.add(8_000, "ada"), pool.add(8_000, "bob")
    pool.end(running[0])
    assert (waiting.admitted, other.admitted) == (False, True)


def test_requests_without_tokens_wait_for_slots_alone(pool: Pool) -> None:
    pool.add(CACHE)
    assert [pool.add(0).admitted for _ in range(4)] == [True, True, True, False]


def test_nothing_is_counted_where_each_slot_has_its_own_cache(pool: Pool) -> None:
    pool.cache = None  # type: ignore[assignment]
    assert all(pool.add(CACHE).admitted for _ in range(4))


def test_request_that_needs_more_than_a_smaller_cache_runs_alone(pool: Pool) -> None:
    running, large = pool.add(20_000), pool.add(30_000)
    pool.cache = 16_384
    assert not large.admitted
    pool.end(running)
    assert large.admitted


def test_tokens_of_a_request_that_was_cut_off_count_a_while_longer(pool: Pool) -> None:
    cut_off = pool.add(20_000)
    pool.end(cut_off, cut_off=True)
    small, large = pool.add(10_000), pool.add(20_000)
    assert (small.admitted, large.admitted) == (True, False)
    pool.end(small)
    assert not large.admitted
    pool.clock.now += LINGER_SECONDS
    other = pool.add(1_000)  # whatever comes has the queue looked at
    assert (large.admitted, other.admitted) == (True, True)


def test_large_request_that_leaves_lets_the_others_go_on(pool: Pool) -> None:
    large, _ = _blocked_by_passers(pool)
    pool.clock.now += PASS_SECONDS
    small = pool.add(2_000)
    assert not small.admitted
    pool.pool.leave(large)
    assert small.admitted


def test_large_request_that_is_given_up_is_told(pool: Pool) -> None:
    pool.add(10_000)
    large = pool.add(30_000)
    large.arrived = pool.clock()
    pool.pool.give_up(ModelUnavailable("gone"), 0)
    assert large.refusal is not None


def test_silent_process_gives_its_tokens_back(pool: Pool) -> None:
    silent, waiting = pool.add(20_000), pool.add(20_000)
    pool.pool.pass_over([silent], 0)
    assert waiting.admitted
    pool.pool.take_up([silent])
    assert not silent.admitted
    pool.end(waiting)
    assert silent.admitted


def test_idle_slots_are_looked_at_while_large_requests_run_and_after_them(pool: Pool) -> None:
    first = pool.add(8_000)
    assert first.crowd == 8_000  # what the slots have after a start is not known
    pool.pool.note_small(first)
    assert pool.add(8_000).crowd == 0
    large = pool.add(10_000)
    assert large.crowd == 26_000
    pool.end(first)
    assert pool.add(5_000).crowd == 23_000
    pool.end(large)
    last = pool.add(5_000)
    assert last.crowd == 18_000
    pool.pool.note_small(last)
    assert pool.add(0).crowd == 0


def test_slots_are_looked_at_again_after_a_large_request_that_ran_while_they_were(pool: Pool) -> None:
    large, looking = pool.add(10_000), pool.add(5_000)
    pool.end(large)
    pool.pool.note_small(looking)  # it has not seen the slot of the large one
    assert pool.add(5_000).crowd
