"""What a caller may use: requests and tokens a minute, tokens a day, requests at the same time.

The limits of a key are its own (:class:`~mistral_api.security.api_key.KeyLimits`); callers without a key share those of
their address. Requests are counted when they arrive, tokens when they have been produced: a request is admitted while
anything of a limit is left, and what it then uses beyond it delays the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mistral_api.errors import ApiError
from mistral_api.security.access import Caller
from mistral_api.security.addresses import network_of
from mistral_api.security.api_key import KeyLimits
from mistral_api.security.concurrency import ConcurrentRequests, RequestPlace
from mistral_api.security.daily_tokens import DailyTokens
from mistral_api.security.request_counts import (
    Admission,
    CountedRequest,
    Counts,
    Refusal,
    RequestCounts,
    UsedTokens,
)
from mistral_api.security.window_counts import MemoryWindows, WindowCounts, WindowUsage

NO_LIMITS = KeyLimits()
# The windows that are remembered in memory: of keys, which are ours, and of addresses, of which there is no end. Each
# has its own, so that no flood of addresses makes us forget a key.
MAX_KEY_WINDOWS, MAX_ADDRESS_WINDOWS = 100_000, 20_000
# When to try again where too many requests run: nobody knows when the first of them ends.
RUNNING_RETRY_SECONDS = 1.0
# What a request holds a place among: the requests to the model, or the streams that follow what runs in the background.
# They count apart, so that who may run one request can follow it.
MODEL_REQUESTS, FOLLOWERS = "requests", "followers"
# What the names of budgets begin with: of an owner's keys, and of an address.
OWNER_BUDGET, ADDRESS_BUDGET = "owner:", "address:"


@dataclass(frozen=True, slots=True)
class LimitWindows:
    """What is used of the limits a minute, for the headers of the response; None where there is no limit."""

    requests: WindowUsage | None = None
    tokens: WindowUsage | None = None


class RateLimited(ApiError):
    """429: the caller has used what they may. ``windows`` is how much that is."""

    status = 429
    type = "rate_limit_exceeded"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, windows: LimitWindows, *, retry_after: float, code: str | None = None) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.windows = windows


@dataclass(frozen=True, slots=True)
class LimitedCaller:
    """A caller with limits: the name of what is counted by the minute, the name of the budget of the day, the limits.

    Keys of one owner share the tokens of the day, for usage is recorded by owner.
    """

    name: str
    budget: str
    limits: KeyLimits
    is_key: bool


class Permit:
    """The permit of one request. It counts the tokens of the request, and holds its place while it runs."""

    __slots__ = ("_count_tokens", "_place", "release", "windows")

    def __init__(self, windows: LimitWindows, count_tokens: Callable[[int], None], place: RequestPlace | None) -> None:
        """``count_tokens`` is called when tokens have been produced."""
        self.windows = windows
        self._count_tokens = count_tokens
        self._place = place
        # Lets go of the place. It may be called more than once.
        self.release: Callable[[], None] = self.hold()

    def hold(self) -> Callable[[], None]:
        """Hold the place for longer than :attr:`release`. Return what lets go of it, once."""
        return _nothing if self._place is None else self._place.hold()

    def count_tokens(self, tokens: int) -> None:
        """Count tokens that have been produced."""
        if tokens:
            self._count_tokens(tokens)


def _nothing() -> None:
    return


class RateLimits:
    """Admits requests. One for the application; safe to use from many threads."""

    def __init__(
        self,
        anonymous: KeyLimits = NO_LIMITS,
        *,
        limit_loopback: bool = False,
        keys: WindowCounts | None = None,
        addresses: WindowCounts | None = None,
        daily: DailyTokens | None = None,
    ) -> None:
        """``anonymous``: the limits of each address without a key; ``limit_loopback``: of this machine's own too."""
        self._anonymous = anonymous
        self._limit_loopback = limit_loopback
        # The requests that run, and the tokens of the day, of those that are counted here.
        self.running = ConcurrentRequests()
        self.daily = daily or DailyTokens()
        self.counts: Counts = RequestCounts(
            keys or WindowCounts(MemoryWindows(MAX_KEY_WINDOWS)),
            addresses or WindowCounts(MemoryWindows(MAX_ADDRESS_WINDOWS)),
            self.running,
            self.daily,
        )
        # Closes the connections to a shared storage.
        self.close: Callable[[], None] = _nothing

    def admit(self, caller: Caller, place_among: str | None = MODEL_REQUESTS) -> Permit | None:
        """Return the permit of a request, or None for a caller without limits. The permit must be released.

        ``place_among``: MODEL_REQUESTS or FOLLOWERS, None for a request that holds no place.
        Raises RateLimited, or Unavailable where requests cannot be counted.
        """
        limited = self._limited(caller)
        return None if limited is None else self._admit(limited, place_among)

    def _limited(self, caller: Caller) -> LimitedCaller | None:
        key = caller.key
        if key is not None:
            if key.limits == NO_LIMITS:
                return None
            return LimitedCaller(f"key:{key.id}", OWNER_BUDGET + key.owner, key.limits, is_key=True)
        if self._anonymous == NO_LIMITS or caller.address is None:
            return None
        # Not by the address: behind a proxy on this machine that is unknown, or that says nothing, it is everybody's.
        if caller.local and not self._limit_loopback:
            return None
        network = network_of(caller.address)
        return LimitedCaller(ADDRESS_BUDGET + network, ADDRESS_BUDGET + network, self._anonymous, is_key=False)

    def _admit(self, limited: LimitedCaller, place_among: str | None) -> Permit:
        limits, admission = limited.limits, self._count(limited, place_among)
        name = None if limits.tokens_per_minute is None else limited.name
        budget = None if limits.tokens_per_day is None else limited.budget

        def count_tokens(number: int) -> None:
            if name is not None or budget is not None:
                self.counts.add_tokens(UsedTokens(number, limited.is_key, name, budget))

        return Permit(LimitWindows(admission.requests, admission.tokens), count_tokens, admission.place)

    def _count(self, limited: LimitedCaller, place_among: str | None) -> Admission:
        """Count a request. Raises RateLimited, or Unavailable."""
        limits, place = limited.limits, None
        if place_among is not None and limits.concurrent_requests is not None:
            place = f"{limited.name}:{place_among}"
        admission = self.counts.admit(
            CountedRequest(
                limited.name,
                limited.is_key,
                limits.requests_per_minute,
                limits.tokens_per_minute,
                place,
                limits.concurrent_requests or 0,
                None if limits.tokens_per_day is None else limited.budget,
                limits.tokens_per_day or 0,
            )
        )
        if admission.refused_by == "budget":
            raise self._spent(limited)
        if admission.refused_by is not None:
            raise _refusal(limited, admission, admission.refused_by)
        return admission

    def _spent(self, limited: LimitedCaller) -> RateLimited:
        """Return the error for a request of a caller who has used the tokens of the day."""
        most = limited.limits.tokens_per_day
        text = f"{_whose(limited)} used up its {most} tokens of this day, which ends at midnight UTC."
        refusal = RateLimited(text, LimitWindows(), retry_after=self.daily.seconds_left, code="budget_exceeded")
        # The clients of OpenAI and Anthropic would repeat the request at once (their ``_base_client.py``).
        refusal.headers["x-should-retry"] = "false"
        return refusal


def _refusal(limited: LimitedCaller, admission: Admission, refused_by: Refusal) -> RateLimited:
    """Return the error for a request that exceeds a limit."""
    limits = limited.limits
    windows = LimitWindows(admission.requests, admission.tokens)
    if refused_by == "place":
        text, retry_after = f"{limits.concurrent_requests} requests at the same time", RUNNING_RETRY_SECONDS
    elif refused_by == "tokens":
        text, retry_after = f"{limits.tokens_per_minute} tokens a minute", _retry_after(windows.tokens)
    else:
        text, retry_after = f"{limits.requests_per_minute} requests a minute", _retry_after(windows.requests)
    return RateLimited(f"{_whose(limited)} reached its limit of {text}.", windows, retry_after=retry_after)


def _retry_after(usage: WindowUsage | None) -> float:
    return RUNNING_RETRY_SECONDS if usage is None else usage.retry_after


def _whose(limited: LimitedCaller) -> str:
    return "This API key has" if limited.is_key else "Your address has"
