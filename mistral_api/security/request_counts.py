"""What is counted against limits while requests come and run: in the last minute, on this day, and at the same time.

:class:`RequestCounts` counts in one process. Several API processes of one ``bin/serve`` count in the first of them
(``security.shared_limits``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mistral_api.security.concurrency import ConcurrentRequests, RequestPlace
from mistral_api.security.daily_tokens import DailyTokens
from mistral_api.security.window_counts import WindowCounts, WindowUsage

Refusal = Literal["budget", "tokens", "place", "requests"]


@dataclass(frozen=True, slots=True)
class CountedRequest:
    """A request of a caller with limits. ``name`` is the caller's; ``requests`` and ``tokens``: their limits a minute.

    ``place``: what the place is counted as that it holds while it runs, of which there are ``places``; None for a
    request that holds none. ``budget``: the name of the tokens of the day, of which there are ``tokens_a_day``; None
    where they have no limit.
    """

    name: str
    is_key: bool
    requests: int | None = None
    tokens: int | None = None
    place: str | None = None
    places: int = 0
    budget: str | None = None
    tokens_a_day: int = 0

    @property
    def asks_nothing(self) -> bool:
        """Whether no limit of a minute or of the day, and no place, concerns it."""
        return self.requests is None and self.tokens is None and self.place is None and self.budget is None


@dataclass(frozen=True, slots=True)
class UsedTokens:
    """Tokens that a request has used. ``name``: whose limit a minute they count for; ``budget``: whose limit a day.

    Each is None where there is no such limit.
    """

    tokens: int
    is_key: bool
    name: str | None = None
    budget: str | None = None


@dataclass(slots=True)
class Admission:
    """What became of a request: what it was refused by, or None; what is used of its limits a minute; its place."""

    refused_by: Refusal | None = None
    requests: WindowUsage | None = None
    tokens: WindowUsage | None = None
    place: RequestPlace | None = None


class Places(Protocol):
    """The requests that run at the same moment."""

    def take(self, name: str, most: int) -> RequestPlace | None:
        """Return a place for one more request of a caller, or None where ``most`` are running. Raises Unavailable."""


class Budgets(Protocol):
    """The tokens of the day."""

    def is_spent(self, name: str, most: int) -> bool:
        """Return whether all tokens of the day have been used. Raises Unavailable."""

    def add(self, name: str, tokens: int) -> None:
        """Count tokens that have been used. It never fails."""


class Counts(Protocol):
    """Counts requests and tokens, in this process or in another one."""

    def admit(self, request: CountedRequest) -> Admission:
        """Count a request, unless that exceeds a limit of its caller. Raises Unavailable."""

    def add_tokens(self, used: UsedTokens) -> None:
        """Count tokens that a caller has used. It never fails."""


class RequestCounts:
    """Counts the requests and tokens of keys and of addresses. Safe to use from many threads."""

    def __init__(
        self,
        keys: WindowCounts,
        addresses: WindowCounts,
        places: Places | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self.keys = keys
        self.addresses = addresses
        self.places: Places = ConcurrentRequests() if places is None else places
        self.budgets: Budgets = DailyTokens() if budgets is None else budgets

    def admit(self, request: CountedRequest) -> Admission:
        """Count a request, unless that exceeds a limit of its caller. Raises Unavailable.

        It is refused first by tokens that were used up, then by places, then by its number; refused, it takes nothing.
        """
        if request.budget is not None and self.budgets.is_spent(request.budget, request.tokens_a_day):
            return Admission("budget")
        counts, admission = self.keys if request.is_key else self.addresses, Admission()
        if request.tokens is not None:
            admission.tokens = counts.usage(_tokens_of(request.name), request.tokens)
            if not admission.tokens.remaining:
                admission.refused_by = "tokens"
                return admission
        if request.place is not None:
            admission.place = self.places.take(request.place, request.places)
            if admission.place is None:
                admission.refused_by = "place"
                return admission
        if request.requests is not None:
            self._count(request, counts, request.requests, admission)
        return admission

    def _count(self, request: CountedRequest, counts: WindowCounts, most: int, admission: Admission) -> None:
        """Count the request itself. Its place is free again where it is refused."""
        name, admitted = f"{request.name}:requests", False
        try:
            admitted = counts.acquire(name, most)
            admission.requests = counts.usage(name, most)
        except BaseException:
            admitted = False
            raise
        finally:
            if not admitted:
                admission.refused_by = "requests"
                _let_go(admission)

    def add_tokens(self, used: UsedTokens) -> None:
        """Count tokens that a caller has used. It never fails."""
        if used.name is not None:
            (self.keys if used.is_key else self.addresses).add(_tokens_of(used.name), used.tokens)
        if used.budget is not None:
            self.budgets.add(used.budget, used.tokens)


def _let_go(admission: Admission) -> None:
    """Let go of the place of a request that is refused after all."""
    place, admission.place = admission.place, None
    if place is not None:
        place.hold()()


def _tokens_of(name: str) -> str:
    return f"{name}:tokens"
