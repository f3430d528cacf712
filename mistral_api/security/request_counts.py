"""What is counted against limits while requests come and run: uses of the last minute, and requests at the same time.

:class:`RequestCounts` counts in one process. Several API processes of one ``bin/serve`` count in the first of them
(``security.shared_limits``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mistral_api.security.concurrency import ConcurrentRequests, RequestPlace
from mistral_api.security.window_counts import WindowCounts, WindowUsage

Refusal = Literal["tokens", "place", "requests"]


@dataclass(frozen=True, slots=True)
class CountedRequest:
    """A request of a caller with limits. ``name`` is the caller's; ``requests`` and ``tokens``: their limits a minute.

    ``place``: what the place is counted as that it holds while it runs, of which there are ``places``; None for a
    request that holds none.
    """

    name: str
    is_key: bool
    requests: int | None = None
    tokens: int | None = None
    place: str | None = None
    places: int = 0

    @property
    def asks_nothing(self) -> bool:
        """Whether no limit of a minute, and no place, concerns it."""
        return self.requests is None and self.tokens is None and self.place is None


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


class Counts(Protocol):
    """Counts requests and tokens, in this process or in another one."""

    def admit(self, request: CountedRequest) -> Admission:
        """Count a request, unless that exceeds a limit of its caller. Raises Unavailable."""

    def add_tokens(self, name: str, tokens: int, *, is_key: bool) -> None:
        """Count tokens that a caller has used. It never fails."""


class RequestCounts:
    """Counts the requests and tokens of keys and of addresses. Safe to use from many threads."""

    def __init__(self, keys: WindowCounts, addresses: WindowCounts, places: Places | None = None) -> None:
        self.keys = keys
        self.addresses = addresses
        self.places: Places = ConcurrentRequests() if places is None else places

    def admit(self, request: CountedRequest) -> Admission:
        """Count a request, unless that exceeds a limit of its caller. Raises Unavailable.

        It is refused first by tokens that were used up, then by places, then by its number; refused, it takes nothing.
        """
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

    def add_tokens(self, name: str, tokens: int, *, is_key: bool) -> None:
        """Count tokens that a caller has used. It never fails."""
        (self.keys if is_key else self.addresses).add(_tokens_of(name), tokens)


def _let_go(admission: Admission) -> None:
    """Let go of the place of a request that is refused after all."""
    place, admission.place = admission.place, None
    if place is not None:
        place.hold()()


def _tokens_of(name: str) -> str:
    return f"{name}:tokens"
