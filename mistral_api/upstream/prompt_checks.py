"""Prompts are checked by the model server while their requests wait for a slot, a few at a time.

Only when a request is known to fit and to render may its response begin: until then a refusal has a status of its own.
"""

from __future__ import annotations

import threading

from mistral_api.upstream.slot_queue import Waiter

# So many prompts are checked at once: what the model server spends on them it does not spend on generating.
CHECKS_AT_ONCE = 2


class CheckTurns:
    """Whose prompt is checked next, in the order of asking. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checking: set[Waiter] = set()
        self._waiting: dict[Waiter, None] = {}

    def ask(self, waiter: Waiter) -> None:
        """Have a waiter woken when its turn has come, which may be at once. :meth:`end` has to follow."""
        with self._lock:
            self._waiting[waiter] = None
            self._give_turns()

    def has_turn(self, waiter: Waiter) -> bool:
        """Whether its turn has come."""
        return waiter in self._checking

    def end(self, waiter: Waiter) -> None:
        """Give up a turn that was used, or is not wanted any more."""
        with self._lock:
            self._waiting.pop(waiter, None)
            self._checking.discard(waiter)
            self._give_turns()

    def _give_turns(self) -> None:
        while self._waiting and len(self._checking) < CHECKS_AT_ONCE:
            waiter = next(iter(self._waiting))
            del self._waiting[waiter]
            self._checking.add(waiter)
            waiter.wake()
