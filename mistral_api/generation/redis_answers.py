"""Answers in a Redis (``CACHE_STORAGE_URL``), which several API processes share. Only whoever uses it has the package.

For each owner Redis has a set of the names of their answers, and a number that grows with each deletion. The names have
hashes of the owner and of the request, and nothing of either. While Redis is away, every request is generated.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from redis import Redis, RedisError, WatchError

from mistral_api.event_loop import waiting
from mistral_api.generation.answer_storage import AnswerStorage, Version
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

# The longest wait for Redis, and how long it is left alone after a failure.
WAIT_SECONDS, PAUSE_SECONDS = 0.5, 5.0
_PREFIX = "mistral-api:answers:"
# How often all answers were dropped.
_CLEARED = f"{_PREFIX}cleared"


class RedisAnswers(AnswerStorage):
    """The answers of all owners in one Redis."""

    def __init__(self, url: str, seconds: float) -> None:
        """``url``: of the setting; ``seconds``: how long an answer is kept."""
        # Its stubs type commands as those of an asynchronous client too.
        self._client: Any = Redis.from_url(
            url.replace("redis+unix://", "unix://", 1),
            socket_timeout=WAIT_SECONDS,
            socket_connect_timeout=WAIT_SECONDS,
        )
        self._milliseconds = max(1, round(seconds * 1000))
        self._away_until = float("-inf")
        self._warn = ThrottledWarning(log)
        # Owners whose answers could not be dropped yet.
        self._unforgotten: set[str] = set()

    def find(self, owner: str, key: str) -> tuple[bytes | None, Version | None]:
        """Return what is there now, in one round trip."""
        return (None, None) if self._away else waiting.aside(partial(self._find, owner, key))

    def _find(self, owner: str, key: str) -> tuple[bytes | None, Version | None]:
        names = _Names(owner)
        with self._failures_noted():
            self._retry_forgetting()
            forgotten, cleared, answer = self._client.mget(names.forgotten, _CLEARED, names.answer(key))
            return answer, (forgotten, cleared)
        return None, None

    def keep(self, owner: str, key: str, answer: bytes, version: Version | None) -> None:
        """Keep an answer in one transaction, which fails where something is forgotten meanwhile."""
        if version is not None and not self._away:
            waiting.aside(partial(self._keep, owner, key, answer, version))

    def _keep(self, owner: str, key: str, answer: bytes, version: Version) -> None:
        names = _Names(owner)
        with self._failures_noted(), self._client.pipeline() as pipe, contextlib.suppress(WatchError):
            pipe.watch(names.forgotten, _CLEARED)
            if tuple(pipe.mget(names.forgotten, _CLEARED)) != version:
                return
            now = time.time()
            pipe.multi()
            pipe.set(names.answer(key), answer, px=self._milliseconds)
            pipe.zremrangebyscore(names.keys, "-inf", now)
            pipe.zadd(names.keys, {names.answer(key): now + self._milliseconds / 1000})
            pipe.pexpire(names.keys, self._milliseconds)
            pipe.execute()

    def forget(self, owner: str) -> None:
        """Drop the answers of an owner; where Redis is away, before the next answer is looked for."""
        self._unforgotten.add(owner)
        with self._failures_noted():
            self._retry_forgetting()

    def _retry_forgetting(self) -> None:
        """Drop what is still to be dropped. Raises RedisError."""
        for owner in list(self._unforgotten):
            names = _Names(owner)
            self._client.incr(names.forgotten)
            self._client.unlink(names.keys, *self._client.zrange(names.keys, 0, -1))
            self._unforgotten.discard(owner)

    def clear(self) -> None:
        """Drop the answers of all owners."""
        with self._failures_noted():
            self._client.incr(_CLEARED)
            for name in self._client.scan_iter(f"{_PREFIX}*:answer:*", count=1000):
                self._client.unlink(name)

    def close(self) -> None:
        """Close the connections; the answers stay."""
        self._client.close()

    @property
    def _away(self) -> bool:
        return time.monotonic() < self._away_until

    @contextlib.contextmanager
    def _failures_noted(self) -> Iterator[None]:
        """Let a failure of Redis end here, and leave it alone for a while."""
        try:
            yield
        except RedisError as error:
            self._away_until = time.monotonic() + PAUSE_SECONDS
            self._warn("answers are not cached: Redis does not answer (%s)", type(error).__name__)


class _Names:
    """The names in Redis of what is an owner's."""

    def __init__(self, owner: str) -> None:
        self._prefix = _PREFIX + hashlib.sha256(owner.encode()).hexdigest()[:32]

    @property
    def forgotten(self) -> str:
        """How often answers of the owner were dropped."""
        return f"{self._prefix}:forgotten"

    @property
    def keys(self) -> str:
        """The names of the answers, by the time at which they end."""
        return f"{self._prefix}:keys"

    def answer(self, key: str) -> str:
        """The answer with this key."""
        return f"{self._prefix}:answer:{key}"
