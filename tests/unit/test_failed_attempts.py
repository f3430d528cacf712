"""Addresses that keep failing: when they are blocked, for how long, and what is forgotten."""

from __future__ import annotations

import pytest

from mistral_api.errors import Unauthorized
from mistral_api.security import failed_attempts
from mistral_api.security.addresses import network_of
from mistral_api.security.failed_attempts import (
    FIRST_BLOCK_SECONDS,
    FORGET_SECONDS,
    LONGEST_BLOCK_SECONDS,
    MOST_FAILURES,
    WINDOW_SECONDS,
    AddressBlocked,
    FailedAttempts,
)
from mistral_api.security.gate import Gate
from mistral_api.settings import Settings
from tests.support.clock import Clock
from tests.support.keys import key_record, key_ring
from tests.support.request_heads import request_head

ADDRESS = "203.0.113.7"


def _fail(attempts: FailedAttempts, times: int, address: str = ADDRESS) -> None:
    for _ in range(times):
        attempts.note(address)


def _blocked_for(attempts: FailedAttempts, address: str = ADDRESS) -> float:
    with pytest.raises(AddressBlocked) as caught:
        attempts.note(address)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_address_is_blocked_after_too_many_failures_within_a_minute() -> None:
    attempts = FailedAttempts(Clock())
    _fail(attempts, MOST_FAILURES)
    assert _blocked_for(attempts) == FIRST_BLOCK_SECONDS
    _fail(attempts, MOST_FAILURES, "203.0.113.8")


def test_slow_failures_block_nobody() -> None:
    clock = Clock()
    attempts = FailedAttempts(clock)
    for _ in range(10):
        _fail(attempts, MOST_FAILURES)
        clock.now += WINDOW_SECONDS + 1


def test_each_block_is_twice_as_long_until_the_longest() -> None:
    clock = Clock()
    attempts, blocks = FailedAttempts(clock), []
    for _ in range(8):
        _fail(attempts, MOST_FAILURES)
        blocks.append(_blocked_for(attempts))
        clock.now += blocks[-1]
    assert blocks[:3] == [FIRST_BLOCK_SECONDS, 2 * FIRST_BLOCK_SECONDS, 4 * FIRST_BLOCK_SECONDS]
    assert blocks[-1] == LONGEST_BLOCK_SECONDS
    clock.now += FORGET_SECONDS + 1
    _fail(attempts, MOST_FAILURES)
    assert _blocked_for(attempts) == FIRST_BLOCK_SECONDS


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("rubbish", "rubbish"),
    ],
)
def test_ipv6_addresses_count_by_their_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_memory_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_attempts, "MOST_ADDRESSES", 100)
    attempts = FailedAttempts(Clock())
    for number in range(1000):
        attempts.note(f"10.0.{number // 256}.{number % 256}")
    assert len(attempts._records) == 100


def test_right_key_is_served_from_a_blocked_address() -> None:
    secret, record = key_record("ada")
    gate = Gate(Settings(), key_ring(record))
    wrong = request_head(peer=ADDRESS, headers={"Authorization": "Bearer wrong"})
    for _ in range(MOST_FAILURES):
        with pytest.raises(Unauthorized):
            gate.admit(wrong)
    with pytest.raises(AddressBlocked):
        gate.admit(wrong)
    assert gate.admit(request_head(peer=ADDRESS, headers={"x-api-key": secret})).owner == "ada"
    assert gate.admit(request_head(path="/health", peer=ADDRESS)).scopes == frozenset()
