"""Where answers are kept that may be given again: in memory, or in a Redis that several servers share.

Whatever is kept ends after CACHE_SECONDS. What an owner deletes must not come back: deleting a conversation forgets all
answers of its owner (:meth:`AnswerStorage.forget`), and an answer whose generation began before that is not kept
(``version``). No value is unpickled: what stands in a Redis is data, whoever wrote it.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod

from cachetools import TTLCache

from mistral_api.settings import SettingError, Settings

# Bytes of memory for an entry besides its answer: key, owner, times.
ENTRY_BYTES = 400

Version = tuple[object, ...]


class AnswerStorage(ABC):
    """Answers by owner and key. Safe to use from many threads; never raises because the storage is away."""

    @abstractmethod
    def find(self, owner: str, key: str) -> tuple[bytes | None, Version | None]:
        """Return the answer, None where there is none, and the version to keep another with; None: keep none."""

    @abstractmethod
    def keep(self, owner: str, key: str, answer: bytes, version: Version | None) -> None:
        """Keep an answer, unless something was forgotten since :meth:`find` gave this version."""

    @abstractmethod
    def forget(self, owner: str) -> None:
        """Drop all answers of an owner."""

    @abstractmethod
    def clear(self) -> None:
        """Drop all answers: the model has been changed."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""


class MemoryAnswers(AnswerStorage):
    """The memory of this process; the answers that were not used for longest go first."""

    def __init__(self, seconds: float, most_bytes: int) -> None:
        self._lock = threading.Lock()
        self._answers: TTLCache[tuple[str, str], bytes] = TTLCache(
            most_bytes, seconds, timer=time.monotonic, getsizeof=lambda answer: len(answer) + ENTRY_BYTES
        )
        self._forgotten = 0

    def find(self, owner: str, key: str) -> tuple[bytes | None, Version | None]:
        """Return what is there now."""
        with self._lock:
            return self._answers.get((owner, key)), (self._forgotten,)

    def keep(self, owner: str, key: str, answer: bytes, version: Version | None) -> None:
        """Keep an answer, if it is not larger than all the room."""
        with self._lock:
            if version == (self._forgotten,) and len(answer) + ENTRY_BYTES <= self._answers.maxsize:
                self._answers[owner, key] = answer

    def forget(self, owner: str) -> None:
        """Drop the answers of an owner."""
        with self._lock:
            self._forgotten += 1
            for each in [known for known in self._answers if known[0] == owner]:
                self._answers.pop(each, None)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._forgotten += 1
            self._answers.clear()

    def close(self) -> None:
        """Drop everything."""
        self.clear()


def open_answer_storage(settings: Settings) -> AnswerStorage | None:
    """Return the storage that the settings ask for, None where no answer is kept. Raises SettingError."""
    if not settings.cache_seconds:
        return None
    if settings.cache_storage_url is None:
        return MemoryAnswers(settings.cache_seconds, settings.cache_bytes)
    try:
        from mistral_api.generation.redis_answers import RedisAnswers  # noqa: PLC0415 - most installations have no redis
    except ImportError as error:
        raise SettingError(
            "CACHE_STORAGE_URL needs the package redis: pip install 'mistral-local-api[redis]'."
        ) from error
    return RedisAnswers(settings.cache_storage_url, settings.cache_seconds)
