"""Limits of several API processes of one ``bin/serve``: the first one counts for all (API_PROCESSES).

A request with limits asks it one question. Where it does not answer, limits of a minute and of a day follow
RATE_LIMIT_FAIL, and whoever needs a place gets 503. With RATE_LIMIT_STORAGE_URL each process counts the minute in
Redis, and asks the first one for places and for the tokens of the day.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from mistral_api.errors import Unavailable
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Hub, Siblings
from mistral_api.security.concurrency import RequestPlace
from mistral_api.security.request_counts import Admission, CountedRequest, Counts, RequestCounts, UsedTokens
from mistral_api.security.window_counts import AWAY_SECONDS, WindowUsage

# How long a request waits for the first process at most.
ANSWER_SECONDS = 3.0

# What a request was refused by, the counts of its requests and of its tokens, and whether it holds a place.
_Answer = tuple[Any, Any, Any, bool]


def share_counts(counts: RequestCounts, siblings: Siblings, *, in_redis: bool, fail_open: bool) -> Counts:
    """Return what counts the requests of this process, so that all count together.

    ``counts``: what counts in this process; ``in_redis``: all processes count the minute there.
    """
    if siblings.hub is not None:
        hub = siblings.hub
        hub.offer(lambda peer: _CountsForPeer(counts, hub, peer).offer())
        return FirstCounts(counts, hub)
    if siblings.first is not None:
        shared = SharedCounts(siblings.first, counts, fail_open=fail_open)
        if in_redis:
            return RequestCounts(counts.keys, counts.addresses, shared, SharedBudgets(shared))
        return shared
    return counts


class FirstCounts:
    """What the first process counts, for its own requests."""

    def __init__(self, counts: RequestCounts, hub: Hub) -> None:
        self._counts = counts
        self._hub = hub

    def admit(self, request: CountedRequest) -> Admission:
        """Count a request, unless that exceeds a limit of its caller. Raises Unavailable."""
        admission = self._counts.admit(request)
        if admission.refused_by != "place" or not self._hub.peers:
            return admission
        self._hub.catch_up()  # a request may just have ended elsewhere
        return self._counts.admit(request)

    def add_tokens(self, used: UsedTokens) -> None:
        """Count tokens that a caller has used. It never fails."""
        self._counts.add_tokens(used)


class _CountsForPeer:
    """What the first process counts for another one, and the places that it holds for its requests."""

    def __init__(self, counts: RequestCounts, hub: Hub, peer: Peer) -> None:
        self._counts = counts
        self._hub = hub
        self._peer = peer
        # By the number that the other process gave to the request.
        self._places: dict[int, Callable[[], None]] = {}

    def offer(self) -> None:
        self._peer.handle("limits.admit", self._admit)
        self._peer.handle("limits.catch-up", self._hub.catch_up, waits=True)
        self._peer.handle("limits.release", self._release)
        self._peer.handle("limits.add-tokens", self._add_tokens)
        self._peer.on_end(self._release_all)

    def _admit(self, number: int, *request: Any) -> _Answer:
        admission = self._counts.admit(CountedRequest(*request))
        if admission.place is not None:
            self._places[number] = admission.place.hold()
            if self._peer.ended:
                self._release(number)
        return (
            admission.refused_by,
            _parts(admission.requests),
            _parts(admission.tokens),
            admission.place is not None,
        )

    def _release(self, number: int) -> None:
        let_go = self._places.pop(number, None)
        if let_go is not None:
            let_go()

    def _release_all(self) -> None:
        for number in list(self._places):
            self._release(number)

    def _add_tokens(self, *used: Any) -> None:
        self._counts.add_tokens(UsedTokens(*used))


def _parts(usage: WindowUsage | None) -> tuple[Any, ...] | None:
    return None if usage is None else (usage.limit, usage.previous, usage.current, usage.seconds_left)


def _usage(parts: list[Any] | None) -> WindowUsage | None:
    return None if parts is None else WindowUsage(*parts)


class SharedCounts:
    """Counts in the first process what another one admits. Safe to use from many threads."""

    def __init__(
        self,
        first: Peer,
        own: RequestCounts,
        *,
        fail_open: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``own`` counts the minute and the day while the first process does not answer, with ``fail_open``."""
        self._first = first
        self._own = own
        self._fail_open = fail_open
        self._clock = clock
        self._away_until = float("-inf")
        self._numbers = count(1)

    def admit(self, request: CountedRequest) -> Admission:
        """Count a request, unless that exceeds a limit of its caller. Raises Unavailable."""
        if request.asks_nothing:
            return Admission()
        if self._clock() >= self._away_until:
            try:
                return self._ask(request)
            except PeerGone:
                self._away_until = self._clock() + AWAY_SECONDS
        if request.place is not None or not self._fail_open:
            raise Unavailable("Requests cannot be counted now.", code="overloaded", retry_after=AWAY_SECONDS)
        return self._own.admit(request)

    def take(self, name: str, most: int) -> RequestPlace | None:
        """Return a place for one more request of a caller, or None where ``most`` are running. Raises Unavailable."""
        return self.admit(CountedRequest(name, is_key=False, place=name, places=most)).place

    def _ask(self, request: CountedRequest) -> Admission:
        admission = self._ask_once(request)
        if admission.refused_by != "place":
            return admission
        # A request may just have ended in a third process.
        self._first.call("limits.catch-up", seconds=ANSWER_SECONDS)
        return self._ask_once(request)

    def _ask_once(self, request: CountedRequest) -> Admission:
        number = next(self._numbers)
        try:
            refused_by, requests, tokens, has_place = self._first.call(
                "limits.admit",
                number,
                request.name,
                request.is_key,
                request.requests,
                request.tokens,
                request.place,
                request.places,
                request.budget,
                request.tokens_a_day,
                seconds=ANSWER_SECONDS,
            )
        except PeerGone:
            # The place may still be given, and nobody would hold it.
            self._first.tell("limits.release", number)
            raise
        place = RequestPlace(lambda: self._release(number)) if has_place else None
        return Admission(refused_by, _usage(requests), _usage(tokens), place)

    def _release(self, number: int) -> None:
        """Let go of a place, before the caller sees the end: other processes know it at the caller's next request."""
        self._first.tell("limits.release", number)
        with contextlib.suppress(PeerGone):
            self._first.flush(ANSWER_SECONDS)

    def add_tokens(self, used: UsedTokens) -> None:
        """Count tokens that a caller has used, before the caller sees the end. It never fails."""
        try:
            self._first.call(
                "limits.add-tokens", used.tokens, used.is_key, used.name, used.budget, seconds=ANSWER_SECONDS
            )
        except PeerGone:
            self._own.add_tokens(used)


class SharedBudgets:
    """The tokens of the day in the first process, for another one that counts the minute elsewhere."""

    def __init__(self, counts: SharedCounts) -> None:
        self._counts = counts

    def is_spent(self, name: str, most: int) -> bool:
        """Return whether all tokens of the day have been used. Raises Unavailable."""
        asked = CountedRequest(name, is_key=False, budget=name, tokens_a_day=most)
        return self._counts.admit(asked).refused_by == "budget"

    def add(self, name: str, tokens: int) -> None:
        """Count tokens that have been used. It never fails."""
        self._counts.add_tokens(UsedTokens(tokens, is_key=False, budget=name))
