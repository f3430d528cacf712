"""Addresses that keep sending wrong keys, or none, are slowed down.

Nobody guesses a key of 256 bits, so this protects the log and the processor, and no secret. A caller with a right key
is served from any address: an office shares one, and so do all who come through one proxy.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mistral_api.errors import ApiError
from mistral_api.security.addresses import network_of

# So many failures within the window block an address, for a time that doubles with each block until the longest one.
MOST_FAILURES, WINDOW_SECONDS = 20, 60.0
FIRST_BLOCK_SECONDS, LONGEST_BLOCK_SECONDS = 30.0, 900.0
# After so long without a failure an address begins anew.
FORGET_SECONDS = 3600.0
# Of more addresses than this, those that failed longest ago are forgotten.
MOST_ADDRESSES = 10_000


class AddressBlocked(ApiError):
    """429: too many requests from this address had no key in force."""

    status = 429
    type = "rate_limit_exceeded"
    default_code = "rate_limit_exceeded"

    def __init__(self, seconds: float) -> None:
        super().__init__("Too many requests from your address without a valid API key.", retry_after=seconds)


class FailureCounter(Protocol):
    """Counts failures, and blocks addresses. It never waits: the web server asks it in its event loop."""

    def note(self, address: str | None) -> None:
        """Count a failure. Raises AddressBlocked where the address has too many of them."""


@dataclass(slots=True)
class _Record:
    """What is known of an address; times are those of the clock."""

    window_began: float
    failed_last: float
    failures: int = 0
    blocks: int = 0
    blocked_until: float = float("-inf")


class FailedAttempts:
    """Counts the failures of each address. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: OrderedDict[str, _Record] = OrderedDict()
        # Told each network that is blocked, and for how many seconds.
        self.on_block: Callable[[str, float], None] = lambda _network, _seconds: None

    def note(self, address: str | None) -> None:
        """Count a failure. Raises AddressBlocked where the address has too many of them."""
        self.note_network(network_of(address or ""))

    def note_network(self, network: str) -> None:
        """Count a failure of an address, or of the network that counts as one. Raises AddressBlocked."""
        now = self._clock()
        with self._lock:
            record = self._record(network, now)
            if now < record.blocked_until:
                raise AddressBlocked(record.blocked_until - now)
            if now - record.window_began > WINDOW_SECONDS:
                record.window_began, record.failures = now, 0
            record.failures += 1
            if record.failures <= MOST_FAILURES:
                return
            seconds = _block(record, now)
        self.on_block(network, seconds)
        raise AddressBlocked(seconds)

    def _record(self, network: str, now: float) -> _Record:
        record = self._records.pop(network, None)
        if record is None or now - record.failed_last > FORGET_SECONDS:
            record = _Record(now, now)
        record.failed_last = now
        self._records[network] = record
        if len(self._records) > MOST_ADDRESSES:
            self._records.popitem(last=False)
        return record


def _block(record: _Record, now: float) -> float:
    """Block an address, and return for how many seconds."""
    seconds: float = min(FIRST_BLOCK_SECONDS * 2**record.blocks, LONGEST_BLOCK_SECONDS)
    record.blocks, record.failures = min(record.blocks + 1, 16), 0
    record.blocked_until = now + seconds
    return seconds
