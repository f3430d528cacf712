"""Whose turn it is: so many responses of all API processes are generated at a time, in the order in which they ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class SharedTurns:
    """Gives turns, ``most`` at a time. Safe to use from many threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Hashable, Callable[[], None]] = OrderedDict()
        self._held: set[Hashable] = set()

    def enter(self, key: Hashable, begin: Callable[[], None]) -> None:
        """Have ``begin`` called once it is the turn of ``key``, which holds it until :meth:`leave`."""
        with self._lock:
            self._waiting[key] = begin
        self._give()

    def leave(self, key: Hashable) -> None:
        """End a turn, or the wait for it."""
        with self._lock:
            self._waiting.pop(key, None)
            self._held.discard(key)
        self._give()

    def _give(self) -> None:
        begun = []
        with self._lock:
            while self._waiting and len(self._held) < self._most:
                key, begin = self._waiting.popitem(last=False)
                self._held.add(key)
                begun.append(begin)
        for begin in begun:
            begin()
