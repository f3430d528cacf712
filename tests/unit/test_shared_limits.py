"""Limits that several API processes count together: in the first one, which the others ask."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from mistral_api.errors import ApiError, Unavailable
from mistral_api.event_loop.loop import EventLoop
from mistral_api.ipc.siblings import Siblings
from mistral_api.security import shared_limits
from mistral_api.security.access import Caller
from mistral_api.security.concurrency import RequestPlace
from mistral_api.security.failed_attempts import MOST_FAILURES, AddressBlocked, FailureCounter
from mistral_api.security.limit_storage import rate_limits_from
from mistral_api.security.rate_limits import Permit, RateLimited, RateLimits
from mistral_api.security.shared_failures import failure_counter
from mistral_api.settings import Settings
from tests.support.clock import within_a_minute
from tests.support.event_loops import hanging, running_loop
from tests.support.limited_callers import caller_with_key, caller_without_key
from tests.support.processes import wait_for
from tests.support.sibling_peers import SiblingPeers, sibling_peers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")

ADDRESS = "203.0.113.7"


@pytest.fixture
def last_loop() -> Iterator[EventLoop]:
    """The loop in which the first process reads what the last one says."""
    with running_loop() as running:
        yield running


@pytest.fixture
def processes(last_loop: EventLoop) -> Iterator[SiblingPeers]:
    """Three processes, which are to be started."""
    within_a_minute()
    with sibling_peers(last_loop=last_loop) as processes:
        yield processes


def _limits(processes: SiblingPeers, **settings: Any) -> list[RateLimits]:
    """Return the limits of each process, the first one's first."""
    limits = [rate_limits_from(Settings(**settings), each) for each in (processes.first, *processes.others)]
    processes.start()
    return limits


def _admit(limits: RateLimits, caller: Caller) -> Permit:
    permit = limits.admit(caller)
    assert permit is not None
    return permit


def test_requests_a_minute_are_counted_by_all_together(processes: SiblingPeers) -> None:
    limits, caller = _limits(processes), caller_with_key(requests_per_minute=3)
    windows = [_admit(each, caller).windows for each in limits]
    assert [each.requests.remaining for each in windows if each.requests] == [2, 1, 0]
    for each in limits:
        with pytest.raises(RateLimited, match="limit of 3 requests a minute") as refused:
            each.admit(caller)
        assert refused.value.windows.requests is not None
        assert 0 < (refused.value.retry_after or 0) <= 120
    _admit(limits[1], caller_with_key("bob", requests_per_minute=1))


def test_addresses_have_their_limits_once(processes: SiblingPeers) -> None:
    limits = _limits(processes, anonymous_requests_per_minute=2)
    for each in limits[1:]:
        _admit(each, caller_without_key(ADDRESS))
    with pytest.raises(RateLimited, match="Your address"):
        limits[0].admit(caller_without_key(ADDRESS))


def test_tokens_that_one_process_counted_refuse_the_next_request_in_another(processes: SiblingPeers) -> None:
    limits, caller = _limits(processes), caller_with_key(tokens_per_minute=10)
    _admit(limits[1], caller).count_tokens(9)
    _admit(limits[2], caller).count_tokens(1)
    for each in limits:
        with pytest.raises(RateLimited, match="limit of 10 tokens a minute"):
            each.admit(caller)


def test_tokens_of_a_day_are_those_of_all_at_once(processes: SiblingPeers) -> None:
    limits, caller = _limits(processes), caller_with_key(tokens_per_day=10)
    for number, each in enumerate([*limits, *limits]):
        if number == 5:
            with pytest.raises(RateLimited, match="used up its 10 tokens of this day") as refused:
                each.admit(caller)
            assert refused.value.code == "budget_exceeded"
            assert 0 < (refused.value.retry_after or 0) <= 86_400
        else:
            _admit(each, caller).count_tokens(2)
    for each in limits:
        with pytest.raises(RateLimited):
            each.admit(caller)
        assert _admit(each, caller_with_key("bob", tokens_per_day=10))


def test_a_request_may_have_all_limits_and_is_refused_by_the_day_first(processes: SiblingPeers) -> None:
    limits = _limits(processes)
    caller = caller_with_key(requests_per_minute=9, tokens_per_minute=9, tokens_per_day=5, concurrent_requests=1)
    permit = _admit(limits[1], caller)
    permit.count_tokens(5)
    permit.release()
    for each in limits:
        with pytest.raises(RateLimited) as refused:
            each.admit(caller)
        assert refused.value.code == "budget_exceeded"
    assert len(limits[0].running) == 0


def test_requests_at_the_same_time_are_those_of_all(processes: SiblingPeers) -> None:
    limits, caller = _limits(processes), caller_with_key(concurrent_requests=2)
    first, second = _admit(limits[0], caller), _admit(limits[1], caller)
    with pytest.raises(RateLimited, match="limit of 2 requests at the same time"):
        limits[2].admit(caller)
    let_go = second.hold()
    second.release()
    with pytest.raises(RateLimited):
        limits[2].admit(caller)
    let_go()
    _admit(limits[2], caller)  # at once: that it has ended is heard before
    first.release()
    _admit(limits[0], caller)
    with pytest.raises(RateLimited):
        limits[1].admit(caller)


def test_a_request_that_is_refused_by_the_minute_holds_no_place(processes: SiblingPeers) -> None:
    limits = _limits(processes)
    caller = caller_with_key(requests_per_minute=1, concurrent_requests=1)
    _admit(limits[1], caller).release()
    for _ in range(3):
        with pytest.raises(RateLimited, match="requests a minute"):
            limits[1].admit(caller)
    assert len(limits[0].running) == 0


def test_the_places_of_a_process_that_ended_are_free(processes: SiblingPeers) -> None:
    limits, caller = _limits(processes), caller_with_key(concurrent_requests=2)
    for _ in range(2):
        _admit(limits[1], caller)
    with pytest.raises(RateLimited):
        limits[2].admit(caller)
    processes.end(0)
    _admit(limits[2], caller)


def test_a_place_is_free_once_its_request_has_ended_also_where_that_is_not_heard_yet(
    processes: SiblingPeers, last_loop: EventLoop
) -> None:
    limits, caller = _limits(processes), caller_with_key(concurrent_requests=1)
    for admitting in limits[:2]:
        permit = _admit(limits[2], caller)
        with hanging(last_loop):
            permit.release()
            _admit(admitting, caller).release()


def test_a_place_that_is_given_too_late_is_given_back(
    processes: SiblingPeers, last_loop: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limits, "ANSWER_SECONDS", 0.05)
    limits, caller = _limits(processes), caller_with_key(concurrent_requests=1)
    with hanging(last_loop), pytest.raises(Unavailable):
        limits[2].admit(caller)
    processes.hub.catch_up()
    assert len(limits[0].running) == 0


def test_a_process_that_ends_while_it_is_given_a_place_does_not_keep_it(
    processes: SiblingPeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, caller = _limits(processes), caller_with_key(concurrent_requests=1)
    take = limits[0].running.take

    def take_and_end(name: str, most: int) -> RequestPlace | None:
        place = take(name, most)
        processes.hub.peers[0].close()
        return place

    monkeypatch.setattr(limits[0].running, "take", take_and_end)
    with pytest.raises(Unavailable):
        limits[1].admit(caller)
    assert len(limits[0].running) == 0


@pytest.mark.parametrize("fail", ["open", "closed"])
def test_without_the_first_process_the_minute_follows_the_setting_and_places_are_refused(
    processes: SiblingPeers, fail: str
) -> None:
    limits = _limits(processes, rate_limit_fail=fail)[1]
    processes.end(0)
    by_the_minute, by_places = caller_with_key(requests_per_minute=1), caller_with_key(concurrent_requests=1)
    by_the_day = caller_with_key(tokens_per_day=1)
    if fail == "open":
        _admit(limits, by_the_minute).count_tokens(1)
        _admit(limits, by_the_day).count_tokens(1)
    for caller in (by_the_minute, by_the_day):
        with pytest.raises(RateLimited if fail == "open" else Unavailable):
            limits.admit(caller)
    with pytest.raises(Unavailable):
        limits.admit(by_places)


def test_a_request_without_limits_asks_nobody(processes: SiblingPeers) -> None:
    limits = _limits(processes)[1]
    processes.end(0)
    assert limits.admit(caller_with_key()) is None


def test_with_redis_the_others_ask_for_places_and_the_day_alone(processes: SiblingPeers) -> None:
    pytest.importorskip("redis")
    # Nobody listens there, so that each process counts the minute by itself.
    limits = _limits(processes, rate_limit_storage_url="redis://127.0.0.1:1")
    by_the_minute = caller_with_key(requests_per_minute=1)
    for each in limits:
        _admit(each, by_the_minute)
    by_places = caller_with_key("bob", concurrent_requests=1)
    permit = _admit(limits[1], by_places)
    with pytest.raises(RateLimited):
        limits[0].admit(by_places)
    permit.release()
    _admit(limits[0], by_places).release()
    by_the_day = caller_with_key("cara", tokens_per_day=2)
    for each in limits[1:]:
        _admit(each, by_the_day).count_tokens(1)
    for each in limits:
        with pytest.raises(RateLimited, match="tokens of this day"):
            each.admit(by_the_day)
        each.close()


def _is_blocked(counter: FailureCounter, address: str = ADDRESS) -> bool:
    """Count a failure. Return whether its address is blocked."""
    try:
        counter.note(address)
    except AddressBlocked:
        return True
    return False


def test_failures_block_an_address_in_all_processes(processes: SiblingPeers) -> None:
    first, second, third = (failure_counter(each) for each in (processes.first, *processes.others))
    processes.start()
    for _ in range(MOST_FAILURES // 2):
        assert not _is_blocked(second)
        assert not _is_blocked(third)
    processes.hub.catch_up()
    assert _is_blocked(first)
    for each in (second, third):
        wait_for(partial(_is_blocked, each), "the block")
        assert not _is_blocked(each, "203.0.113.8")


def test_a_process_that_begins_later_learns_of_a_block(processes: SiblingPeers) -> None:
    first, late = failure_counter(processes.first), failure_counter(processes.others[0])
    for _ in range(MOST_FAILURES):
        assert not _is_blocked(first)
    assert _is_blocked(first)
    processes.start()
    wait_for(lambda: _is_blocked(late), "the block")


def test_one_process_alone_counts_by_itself() -> None:
    limits, caller = rate_limits_from(Settings(), Siblings()), caller_with_key(requests_per_minute=1)
    _admit(limits, caller)
    with pytest.raises(ApiError):
        limits.admit(caller)
