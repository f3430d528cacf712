"""Answers in a real Redis: their owners, their time, deletions, and a Redis that is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from mistral_api.generation import redis_answers
from mistral_api.generation.redis_answers import RedisAnswers
from mistral_api.settings import SettingError, settings_from
from tests.support.processes import free_port, wait_for
from tests.support.redis_server import running_redis


@pytest.fixture(name="url")
def _url(tmp_path: Path) -> Iterator[str]:
    with running_redis(tmp_path) as server:
        yield server.url


@pytest.fixture(name="answers")
def _answers(url: str) -> Iterator[RedisAnswers]:
    answers = RedisAnswers(url, 60)
    yield answers
    answers.close()


def _keep(answers: RedisAnswers, owner: str, key: str, answer: bytes = b"\x00\xffyes") -> None:
    found, version = answers.find(owner, key)
    assert found is None
    answers.keep(owner, key, answer, version)


def test_an_answer_is_its_owners_and_names_nobody(answers: RedisAnswers, url: str) -> None:
    _keep(answers, "alice", "k1")
    assert answers.find("alice", "k1")[0] == b"\x00\xffyes"
    assert answers.find("bob", "k1")[0] is None
    with Redis.from_url(url) as redis:
        names = [name.decode() for name in redis.scan_iter()]
        assert names
        assert all(name.startswith("mistral-api:answers:") and "alice" not in name for name in names)
        assert all(redis.pttl(name) > 0 for name in names)


def test_what_is_deleted_is_gone_and_does_not_come_back(answers: RedisAnswers, url: str) -> None:
    _keep(answers, "alice", "k1")
    _keep(answers, "bob", "k1")
    _, before = answers.find("alice", "k2")
    other = RedisAnswers(url, 60)  # as another process has it
    other.forget("alice")
    other.close()
    answers.keep("alice", "k2", b"generated before the deletion", before)
    assert answers.find("alice", "k1")[0] is None
    assert answers.find("alice", "k2")[0] is None
    assert answers.find("bob", "k1")[0]
    _keep(answers, "alice", "k2")
    answers.clear()
    assert answers.find("bob", "k1")[0] is None
    assert answers.find("alice", "k2")[0] is None


def test_answers_end_after_their_time(url: str) -> None:
    answers = RedisAnswers(url, 2)
    _keep(answers, "alice", "k1")
    with Redis.from_url(url) as redis:
        for name in redis.scan_iter("*:keys"):
            redis.persist(name)  # else the list ends as a whole
        wait_for(lambda: not any(redis.scan_iter("*:answer:*")), "the end of the answer")
        time.sleep(0.1)  # Redis counts whole milliseconds, and may be early by one
        assert answers.find("alice", "k1")[0] is None
        _keep(answers, "alice", "k2")
        sizes = [redis.zcard(name) for name in redis.scan_iter("*:keys")]
    assert sizes == [1]  # and so does what is known of them
    answers.close()


def test_a_redis_that_is_away_costs_one_wait_and_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_answers, "PAUSE_SECONDS", 0.3)
    with running_redis(tmp_path) as server:
        answers = RedisAnswers(server.url, 60)
        server.stop()
        assert answers.find("alice", "k1") == (None, None)
        answers.keep("alice", "k1", b"answer", None)
        started = time.monotonic()
        for _ in range(100):
            assert answers.find("alice", "k1") == (None, None)
        assert time.monotonic() - started < 5
        server.start()
        time.sleep(0.3)
        _keep(answers, "alice", "k1")
        assert answers.find("alice", "k1")[0]
    answers.forget("alice")  # while it is away
    answers.clear()
    answers.close()


def test_what_was_deleted_while_redis_was_away_is_dropped_before_it_is_used_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_answers, "PAUSE_SECONDS", 0.2)
    answers = RedisAnswers(url, 60)
    _keep(answers, "alice", "k1")
    with Redis.from_url(url) as redis:
        client = answers._client
        answers._client = Redis.from_url(f"redis://127.0.0.1:{free_port()}/0")
        answers.forget("alice")
        answers._client.close()
        answers._client = client
        assert any(redis.scan_iter("*:answer:*"))
        time.sleep(0.2)
        assert answers.find("alice", "k1")[0] is None
        assert not any(redis.scan_iter("*:answer:*"))
    answers.close()


@pytest.mark.parametrize("url", ["http://x", "redis://", "localhost:6379", "memory://"])
def test_the_setting_takes_the_url_of_a_redis(url: str) -> None:
    with pytest.raises(SettingError, match="CACHE_STORAGE_URL: its value is not allowed"):
        settings_from({"CACHE_STORAGE_URL": url})
