"""Admission of requests by the limits of keys and addresses: what is counted, for whom, and what is released."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from mistral_api.security.access import Caller
from mistral_api.security.addresses import network_of
from mistral_api.security.api_key import KeyLimits
from mistral_api.security.daily_tokens import DailyTokens
from mistral_api.security.rate_limits import MAX_ADDRESS_WINDOWS, Permit, RateLimited, RateLimits
from mistral_api.security.window_counts import MemoryWindows, WindowCounts
from tests.support.clock import Clock
from tests.support.limited_callers import caller_with_key, caller_without_key

DAY = 86_400
MakeLimits = Callable[..., RateLimits]


@pytest.fixture
def clock() -> Clock:
    """A clock at noon of some day."""
    clock = Clock()
    clock.now = 20_000.5 * DAY
    return clock


@pytest.fixture
def make_limits(clock: Clock) -> MakeLimits:
    """Return a function that makes rate limits by that clock."""

    def make(anonymous: KeyLimits | None = None, **options: bool) -> RateLimits:
        return RateLimits(
            anonymous or KeyLimits(),
            keys=WindowCounts(MemoryWindows(100, clock), clock=clock),
            addresses=WindowCounts(MemoryWindows(100, clock), clock=clock),
            daily=DailyTokens(clock),
            **options,
        )

    return make


def _admitted(permit: Permit | None) -> Permit:
    assert permit is not None
    return permit


def test_a_key_without_limits_and_a_caller_on_loopback_need_no_permit(make_limits: MakeLimits) -> None:
    limits = make_limits(KeyLimits(1, 1, 1, 1))
    for caller in (caller_with_key(), *map(caller_without_key, ("127.0.0.1", "::1", "::ffff:127.0.0.1", None))):
        assert [limits.admit(caller) for _ in range(3)] == [None] * 3


def test_caller_behind_a_proxy_that_says_nothing_of_its_client_is_limited(make_limits: MakeLimits) -> None:
    limits = make_limits(KeyLimits(requests_per_minute=1))
    proxied = Caller("anonymous", "127.0.0.1", local=False)
    _admitted(limits.admit(proxied))
    with pytest.raises(RateLimited):
        limits.admit(proxied)


def test_addresses_have_no_limits_unless_they_are_set(make_limits: MakeLimits) -> None:
    assert make_limits().admit(caller_without_key("203.0.113.9")) is None


def test_loopback_has_the_limits_of_an_address_where_that_is_asked_for(make_limits: MakeLimits) -> None:
    limits = make_limits(KeyLimits(requests_per_minute=1), limit_loopback=True)
    limits.admit(caller_without_key("127.0.0.1"))
    with pytest.raises(RateLimited):
        limits.admit(caller_without_key("127.0.0.1"))


def test_requests_a_minute_are_counted_for_each_key_alone(make_limits: MakeLimits, clock: Clock) -> None:
    limits = make_limits()
    caller, other = caller_with_key(requests_per_minute=2), caller_with_key("bob", requests_per_minute=1)
    remaining = [_admitted(limits.admit(caller)).windows.requests for _ in range(2)]
    assert [usage.remaining for usage in remaining if usage] == [1, 0]
    with pytest.raises(RateLimited) as refused:
        limits.admit(caller)
    assert (refused.value.status, refused.value.type) == (429, "rate_limit_exceeded")
    assert refused.value.code == "rate_limit_exceeded"
    assert "limit of 2 requests a minute" in refused.value.message
    assert limits.admit(other) is not None
    clock.now += refused.value.retry_after or 0
    assert limits.admit(caller) is not None


def test_tokens_a_minute_are_counted_when_they_have_been_produced(make_limits: MakeLimits, clock: Clock) -> None:
    limits = make_limits()
    caller = caller_with_key(tokens_per_minute=100)
    first, second = _admitted(limits.admit(caller)), _admitted(limits.admit(caller))
    first.count_tokens(70)
    second.count_tokens(70)
    with pytest.raises(RateLimited) as refused:
        limits.admit(caller)
    assert refused.value.windows.tokens is not None
    assert refused.value.windows.tokens.remaining == 0
    assert "limit of 100 tokens a minute" in refused.value.message
    clock.now += refused.value.retry_after or 0
    assert limits.admit(caller) is not None


def test_tokens_of_a_day_are_those_of_the_owner_until_midnight_utc(make_limits: MakeLimits, clock: Clock) -> None:
    limits = make_limits()
    caller, same_owner = caller_with_key(tokens_per_day=100), caller_with_key(tokens_per_day=100)
    _admitted(limits.admit(caller)).count_tokens(100)
    for each in (caller, same_owner):
        with pytest.raises(RateLimited) as refused:
            limits.admit(each)
        assert refused.value.code == "budget_exceeded"
        assert refused.value.retry_after == DAY / 2
        assert refused.value.headers["x-should-retry"] == "false"
    assert limits.admit(caller_with_key("bob", tokens_per_day=100)) is not None
    clock.now += DAY / 2
    assert limits.admit(caller) is not None


def test_concurrent_requests_end_when_they_are_released_and_only_once(make_limits: MakeLimits) -> None:
    limits = make_limits()
    caller = caller_with_key(concurrent_requests=2)
    first, second = _admitted(limits.admit(caller)), _admitted(limits.admit(caller))
    with pytest.raises(RateLimited) as refused:
        limits.admit(caller)
    assert "limit of 2 requests at the same time" in refused.value.message
    assert refused.value.retry_after == 1
    first.release()
    first.release()
    third = _admitted(limits.admit(caller))
    with pytest.raises(RateLimited):
        limits.admit(caller)
    for permit in (second, third):
        permit.release()
    assert len(limits.running) == 0


def test_a_request_that_asks_nothing_of_the_model_holds_no_place(make_limits: MakeLimits) -> None:
    limits = make_limits()
    caller = caller_with_key(concurrent_requests=1)
    running = _admitted(limits.admit(caller))
    assert [limits.admit(caller, None) is None for _ in range(3)] == [False] * 3
    running.release()


def test_a_place_is_free_when_the_last_of_its_holders_has_let_go(make_limits: MakeLimits) -> None:
    limits = make_limits()
    caller = caller_with_key(concurrent_requests=1)
    permit = _admitted(limits.admit(caller))
    let_go = permit.hold()
    permit.release()
    with pytest.raises(RateLimited):
        limits.admit(caller)
    let_go()
    let_go()
    _admitted(limits.admit(caller)).release()
    assert len(limits.running) == 0


def test_a_refused_request_takes_no_place_and_counts_nothing(make_limits: MakeLimits) -> None:
    limits = make_limits()
    caller = caller_with_key(requests_per_minute=1, concurrent_requests=1)
    permit = _admitted(limits.admit(caller))
    for _ in range(5):
        with pytest.raises(RateLimited, match="same time"):
            limits.admit(caller)
    permit.release()
    for _ in range(5):
        with pytest.raises(RateLimited, match="requests a minute"):
            limits.admit(caller)
    assert len(limits.running) == 0


def test_many_threads_never_run_more_than_the_limit(make_limits: MakeLimits) -> None:
    limits = make_limits()
    caller = caller_with_key(concurrent_requests=5)
    lock, running, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        for _ in range(300):
            try:
                permit = _admitted(limits.admit(caller))
            except RateLimited:
                continue
            with lock:
                running += 1
                most = max(most, running)
            with lock:
                running -= 1
            permit.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 5
    assert len(limits.running) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
    ],
)
def test_addresses_of_ipv6_count_by_their_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_hosts_of_one_ipv6_network_share_their_limits(make_limits: MakeLimits) -> None:
    limits = make_limits(KeyLimits(requests_per_minute=2))
    for host in ("2001:db8::1", "2001:db8::2"):
        limits.admit(caller_without_key(host))
    with pytest.raises(RateLimited, match="Your address"):
        limits.admit(caller_without_key("2001:db8::3"))
    assert limits.admit(caller_without_key("2001:db8:0:1::1")) is not None


def test_a_flood_of_addresses_is_forgotten_and_keys_are_not() -> None:
    clock = Clock()
    windows = MemoryWindows(MAX_ADDRESS_WINDOWS, clock)
    counts = WindowCounts(MemoryWindows(10, clock), clock=clock)
    limits = RateLimits(KeyLimits(requests_per_minute=10), keys=counts, addresses=WindowCounts(windows, clock=clock))
    caller = caller_with_key(requests_per_minute=1)
    limits.admit(caller)
    for number in range(MAX_ADDRESS_WINDOWS + 500):
        limits.admit(caller_without_key(f"2001:db8:{number:x}::1"))
    assert len(windows) == MAX_ADDRESS_WINDOWS
    with pytest.raises(RateLimited):
        limits.admit(caller)


class TestDailyTokens:
    """What was read, and what this process has counted since."""

    def test_a_name_asks_for_its_sum_once_and_takes_it(self, clock: Clock) -> None:
        daily = DailyTokens(clock)
        assert daily.used("owner:a") == 0
        assert daily.is_wanted.is_set()
        daily.add("owner:a", 5)
        snapshot, midnight = daily.begin_reading()
        daily.add("owner:a", 7)  # while it is read
        daily.end_reading(snapshot, {"owner:a": 1005}, midnight)
        assert daily.used("owner:a") == 1012
        assert not daily.is_wanted.is_set()

    def test_a_later_reading_brings_what_other_processes_used(self, clock: Clock) -> None:
        daily = DailyTokens(clock)
        daily.add("owner:a", 10)
        for stored in (10, 25):
            snapshot, midnight = daily.begin_reading()
            daily.end_reading(snapshot, {"owner:a": stored}, midnight)
        daily.add("owner:a", 1)
        assert daily.used("owner:a") == 26

    def test_a_reading_of_yesterday_counts_nothing_today(self, clock: Clock) -> None:
        daily = DailyTokens(clock)
        daily.add("owner:a", 10)
        snapshot, midnight = daily.begin_reading()
        clock.now += DAY
        daily.end_reading(snapshot, {"owner:a": 99}, midnight)
        assert daily.used("owner:a") == 0
        assert daily.is_wanted.is_set()

    def test_a_failed_reading_keeps_what_was_counted_and_is_wanted_again(self, clock: Clock) -> None:
        daily = DailyTokens(clock)
        daily.add("owner:a", 10)
        daily.begin_reading()
        assert daily.used("owner:a") == 10
        assert daily.is_wanted.is_set()

    def test_names_are_bounded(self, clock: Clock) -> None:
        daily = DailyTokens(clock, most=3)
        for name in "abcde":
            daily.add(name, 1)
        assert [daily.begin_reading()[0].get(name) for name in "abcde"] == [None, None, 1, 1, 1]
