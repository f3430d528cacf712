"""Limits that several API processes count together in Redis, and what they do while it is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from mistral_api.errors import StartError, Unavailable
from mistral_api.security.limit_storage import rate_limits_from
from mistral_api.security.rate_limits import Permit, RateLimited, RateLimits
from mistral_api.security.window_counts import AWAY_SECONDS
from mistral_api.settings import Settings
from tests.support.limited_callers import caller_with_key
from tests.support.processes import Server, running_api, temporary_data_dir, wait_for
from tests.support.redis_server import RedisServer, running_redis


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own for one test."""
    with running_redis(tmp_path) as server:
        yield server


def _limits(url: str, fail: str = "open") -> RateLimits:
    return rate_limits_from(Settings(rate_limit_storage_url=url, rate_limit_fail=fail))


def _admitted(permit: Permit | None) -> Permit:
    assert permit is not None
    return permit


def test_processes_count_requests_together(redis_server: RedisServer) -> None:
    one, other = _limits(redis_server.url), _limits(redis_server.url)
    caller = caller_with_key(requests_per_minute=4)
    for limits in (one, other, one, other):
        assert limits.admit(caller) is not None
    for limits in (one, other):
        with pytest.raises(RateLimited) as refused:
            limits.admit(caller)
        assert 1 <= (refused.value.retry_after or 0) <= 120


def test_processes_count_tokens_together_beyond_the_limit(redis_server: RedisServer) -> None:
    one, other = _limits(redis_server.url), _limits(redis_server.url)
    caller = caller_with_key(tokens_per_minute=100)
    _admitted(one.admit(caller)).count_tokens(90)
    permit = _admitted(other.admit(caller))
    assert permit.windows.tokens is not None
    assert permit.windows.tokens.remaining == 10
    permit.count_tokens(5000)
    with pytest.raises(RateLimited) as refused:
        one.admit(caller)
    # The window has to end, and to fade out until 100 of 5090 are left.
    assert 110 < (refused.value.retry_after or 0) < 120


def test_an_open_limit_counts_by_itself_while_redis_is_away_and_together_when_it_is_back(
    redis_server: RedisServer,
) -> None:
    limits = _limits(redis_server.url)
    caller = caller_with_key(requests_per_minute=2)
    assert limits.admit(caller) is not None
    redis_server.stop()
    began = time.monotonic()
    assert [limits.admit(caller) is None for _ in range(2)] == [False, False]
    with pytest.raises(RateLimited):
        limits.admit(caller)
    assert time.monotonic() - began < 10
    redis_server.start()
    wait_for(lambda: _counts_elsewhere(limits, redis_server), "counting in Redis", AWAY_SECONDS + 5)


def _counts_elsewhere(limits: RateLimits, server: RedisServer) -> bool:
    """Whether another process sees what this one counts."""
    caller = caller_with_key(requests_per_minute=1)
    limits.admit(caller)
    try:
        _limits(server.url).admit(caller)
    except RateLimited:
        return True
    return False


def test_a_closed_limit_refuses_while_redis_is_away(redis_server: RedisServer) -> None:
    limits = _limits(redis_server.url, "closed")
    caller = caller_with_key(requests_per_minute=2, concurrent_requests=1)
    redis_server.stop()
    for _ in range(2):
        with pytest.raises(Unavailable) as refused:
            limits.admit(caller)
        assert (refused.value.status, refused.value.code) == (503, "overloaded")
    assert len(limits.running) == 0
    assert limits.admit(caller_with_key()) is None


def test_the_settings_say_what_is_wrong_with_a_url_and_show_no_password() -> None:
    with pytest.raises(StartError) as refused:
        _limits("redis://:secret@127.0.0.1:6379/0?no_such_option=1&socket_timeout=never")
    assert "RATE_LIMIT_STORAGE_URL" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("fail", ["open", "closed"])
def test_api_processes_share_the_limits_of_an_address(server: Server, redis_server: RedisServer, fail: str) -> None:
    settings = {
        "MODEL_SERVER_PORT": str(server.model_port),
        "RATE_LIMIT_STORAGE_URL": redis_server.url,
        "RATE_LIMIT_FAIL": fail,
        "LIMIT_LOOPBACK": "true",
        "ANONYMOUS_REQUESTS_PER_MINUTE": "4",
    }
    with (
        temporary_data_dir() as data_dir,
        running_api(data_dir, **settings) as one,
        running_api(data_dir, **settings) as other,
    ):
        statuses = [_ask(api).status_code for api in (one, other, one, other, one, other)]
        assert statuses == [200] * 4 + [429] * 2
        redis_server.stop()
        assert _ask(one).status_code == (200 if fail == "open" else 503)
        assert requests.get(f"{one.url}/health/live", timeout=10).status_code == 200
        redis_server.start()
        wait_for(lambda: "x-ratelimit-remaining-requests" in _ask(other).headers, "counting in Redis")


def _ask(api: Server) -> requests.Response:
    return requests.get(f"{api.url}/v1/models", headers={"X-Request-Id": uuid4().hex}, timeout=20)
