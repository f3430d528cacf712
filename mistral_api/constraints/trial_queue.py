"""Who waits for a trial: so many in all, so many of one owner, and owners take turns.

A trial takes about a second. Without turns, one caller with ever new constraints would keep all others from theirs.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from mistral_api.errors import Unavailable

# Requests that wait for a trial, with the one whose trial runs.
MOST_WAITING, MOST_WAITING_OF_ONE = 16, 8
WAIT_SECONDS = 15.0


class _Ticket:
    """A request that waits."""

    __slots__ = ("owner",)

    def __init__(self, owner: str) -> None:
        self.owner = owner


class TrialQueue:
    """Lets one request after the other have its trial. Safe to use from many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[_Ticket] = []
        self._running = False
        # The number of the turn that an owner had last; owners without a request are forgotten.
        self._turns = 0
        self._last_turn: dict[str, int] = {}

    @contextlib.contextmanager
    def turn(self, owner: str) -> Iterator[None]:
        """Wait for the turn of a request, and have it. Raises Unavailable where too many wait, or for too long."""
        ticket = _Ticket(owner)
        with self._changed:
            self._require_room(owner)
            self._tickets.append(ticket)
            try:
                self._wait(ticket)
            except BaseException:
                self._leave(ticket)
                raise
        try:
            yield
        finally:
            with self._changed:
                self._running = False
                self._leave(ticket)

    def _require_room(self, owner: str) -> None:
        own = sum(each.owner == owner for each in self._tickets)
        if len(self._tickets) >= MOST_WAITING or own >= MOST_WAITING_OF_ONE:
            raise too_busy()

    def _wait(self, ticket: _Ticket) -> None:
        if not self._changed.wait_for(lambda: not self._running and self._next() is ticket, WAIT_SECONDS):
            raise too_busy()
        self._running = True
        self._turns += 1
        self._last_turn[ticket.owner] = self._turns

    def _next(self) -> _Ticket:
        """Return the request whose turn it is: of the owner who had the last turn longest ago, the first that came."""
        return min(self._tickets, key=lambda each: self._last_turn.get(each.owner, 0))

    def _leave(self, ticket: _Ticket) -> None:
        self._tickets.remove(ticket)
        if not any(each.owner == ticket.owner for each in self._tickets):
            self._last_turn.pop(ticket.owner, None)
        self._changed.notify_all()


def too_busy() -> Unavailable:
    """Return a 503: the trial that a request needs cannot be had now."""
    return Unavailable("Too many grammars and JSON schemas are being tried out now.", code="overloaded", retry_after=2)
