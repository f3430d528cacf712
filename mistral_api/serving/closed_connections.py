"""Connections that were closed to make room: counted by address, and told of once in a while."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

log = logging.getLogger(__name__)

# How often they are told of, in seconds, and of how many addresses: those with the most.
REPORT_SECONDS, MOST_ADDRESSES = 10.0, 5
# More addresses than this are not counted apart.
MOST_COUNTED = 10_000

OnClosed = Callable[[str, int], None]


class ClosedConnections:
    """The count since the last report. Everything here runs in the loop of the server."""

    def __init__(self, on_closed: OnClosed) -> None:
        """``on_closed`` gets an address and its count. It may write to a disk, so the loop does not call it."""
        self._on_closed = on_closed
        self._counts: Counter[str] = Counter()
        self._next_report = float("-inf")

    def note(self, address: str) -> None:
        """Count a connection that is closed."""
        if address in self._counts or len(self._counts) < MOST_COUNTED:
            self._counts[address] += 1

    def take_report(self, now: float) -> ClosedReport | None:
        """Return what there is to tell, where it is time. ``now``: the monotonic time in seconds."""
        if not self._counts or now < self._next_report:
            return None
        report = ClosedReport(self._on_closed, self._counts.most_common(MOST_ADDRESSES))
        self._counts.clear()
        self._next_report = now + REPORT_SECONDS
        return report


class ClosedReport:
    """A task for a lane: tells of the connections that were closed."""

    def __init__(self, on_closed: OnClosed, counts: list[tuple[str, int]]) -> None:
        self._on_closed = on_closed
        self._counts = counts

    def service(self) -> None:
        """Tell of them."""
        for address, count in self._counts:
            self._on_closed(address, count)

    def cancel(self) -> None:
        """Tell nobody: the server ends."""
        log.debug("%d addresses whose connections were closed are not reported", len(self._counts))
