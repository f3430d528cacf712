"""Results that are kept as long as their sizes together stay below a limit: clients decide how large each is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache

MOST_BYTES = 16 * 2**20
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class SizedCache(Generic[_Key, _Value]):
    """The results that were used last, for any thread."""

    def __init__(
        self, size: Callable[[_Key, _Value], int], most_bytes: int = MOST_BYTES, *, largest: int | None = None
    ) -> None:
        """``size``: about how many bytes a key and its result take. ``largest``: the most that one may take."""
        self._size = size
        self.most_bytes = most_bytes
        self._largest = most_bytes if largest is None else largest
        self._lock = threading.Lock()
        self._entries: LRUCache[_Key, tuple[_Value, int]] = LRUCache(most_bytes, getsizeof=lambda entry: entry[1])

    @property
    def bytes(self) -> int:
        """About how many bytes all that is kept takes."""
        with self._lock:
            return int(self._entries.currsize)

    def find(self, key: _Key) -> _Value | None:
        """Return a result, None where it is not known."""
        with self._lock:
            entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def add(self, key: _Key, value: _Value) -> None:
        """Keep a result, and drop those that were not used for the longest time. One that is too large is not kept."""
        size = self._size(key, value)
        with self._lock:
            if size <= self._largest:
                self._entries[key] = value, size
