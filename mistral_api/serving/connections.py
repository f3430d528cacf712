"""All open connections: which may come, and which must go.

Accepting never stops. A connection that comes when there are too many makes room by closing those that cost a client
least: first those whose requests were refused, then those without a whole head, the longest waiting first, then idle
ones. Where every other connection is being served, a few more are let in, which reach only the lanes of their own.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mistral_api.errors import ApiError
from mistral_api.security.addresses import network_of
from mistral_api.serving.channel import Channel, Client, Phase
from mistral_api.serving.closed_connections import ClosedConnections
from mistral_api.serving.connection_limits import ConnectionLimits
from mistral_api.serving.connection_shares import ConnectionShares
from mistral_api.serving.held_bytes import HeldBytes
from mistral_api.serving.hooks import Hooks
from mistral_api.serving.refusals import overloaded, too_many_connections
from mistral_api.serving.request_parser import RequestParser
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

# In the order in which they are closed under pressure.
_CLOSED_FIRST = (Phase.LINGERING, Phase.HEAD, Phase.IDLE)
# So many are closed at once, since looking for them takes a look at all.
EVICTED_AT_ONCE = 16


class Connections:
    """The open connections of a server. Everything here runs in its loop."""

    def __init__(self, limits: ConnectionLimits, hooks: Hooks, shares: ConnectionShares | None = None) -> None:
        """``shares``: of the API processes that accept at the same socket."""
        self.limits = limits
        self.hooks = hooks
        self.shares = shares
        self.held = HeldBytes(limits.held_bytes)
        self._open: set[Channel] = set()
        self._by_group: Counter[str] = Counter()
        self.closed = ClosedConnections(hooks.on_closed)
        self._warn_of_connections = ThrottledWarning(log)
        self._warn_of_bytes = ThrottledWarning(log)

    def __len__(self) -> int:
        return len(self._open)

    def count(self, phase: Phase) -> int:
        """Return how many connections are at this phase; a guess where the loop runs meanwhile."""
        return sum(channel.phase is phase for channel in list(self._open))

    def admit(self, server: Any, connection: socket.socket, address: tuple[Any, ...]) -> None:
        """Make a channel of an accepted connection, or close it."""
        group = network_of(str(address[0]))
        refusal = self._make_room(group, str(address[0]))
        if refusal is not None and not self._has_surplus():
            connection.close()
            self.closed.note(str(address[0]))
            return

        def new_parser(adj: object) -> RequestParser:
            return RequestParser(adj, self.limits, self.held, str(address[0]), self.hooks.refuse_early)

        channel = Channel(server, connection, Client(address, group, new_parser, refusal))
        self._open.add(channel)
        self._by_group[group] += 1
        self._note_share()

    def remove(self, channel: Channel) -> None:
        """Forget a connection that is closed."""
        if channel in self._open:
            self._open.discard(channel)
            group = channel.client.group
            self._by_group[group] -= 1
            if not self._by_group[group]:
                del self._by_group[group]
            self._note_share()

    def _note_share(self) -> None:
        if self.shares is not None:
            self.shares.note(len(self._open))

    def _make_room(self, group: str, address: str) -> ApiError | None:
        """Close others if need be. Return what all requests of the new connection shall get where that did not do."""
        most = self.limits.address_connections
        if most and self._by_group[group] >= most and not self.hooks.is_unbounded(address):
            same = [channel for channel in self._open if channel.client.group == group]
            if not self.evict(same):
                return too_many_connections()
        if len(self._open) >= self.limits.connections:
            self._warn_of_connections(
                "%d connections are open, as many as may be: those without a request are closed", len(self._open)
            )
            if not self.evict(self._open):
                return overloaded()
        return None

    def _has_surplus(self) -> bool:
        """Whether another connection beyond the bounds may be open, for the reserved lanes."""
        surplus = [channel for channel in self._open if channel.client.refusal is not None]
        return len(surplus) < self.limits.surplus or self.evict(surplus) > 0

    def evict(self, candidates: Iterable[Channel] | None = None) -> int:
        """Close some connections that are being served nothing, the oldest first. Return how many."""
        by_phase: dict[Phase, list[Channel]] = {phase: [] for phase in _CLOSED_FIRST}
        for channel in self._open if candidates is None else candidates:
            by_phase.get(channel.phase, []).append(channel)
        for phase in _CLOSED_FIRST:
            closed = sorted(by_phase[phase], key=lambda channel: channel.since)[:EVICTED_AT_ONCE]
            for channel in closed:
                self.remove(channel)
                self.closed.note(str(channel.client.address[0]))
                channel.close_soon()
            if closed:
                return len(closed)
        return 0

    def relieve(self) -> None:
        """Refuse bodies that are coming until no more is held than may be: first those that hold much for long."""
        while self.held.exceeded:
            coming = [channel for channel in self._open if channel.phase is Phase.BODY]
            if not coming:
                return
            self._warn_of_bytes(
                "the bodies of requests take %d bytes: the largest and slowest are refused", self.held.total
            )
            max(coming, key=lambda channel: channel.body_cost).refuse(overloaded())

    def check_deadlines(self) -> None:
        """End what has taken too long on each connection."""
        now = time.monotonic()
        for channel in list(self._open):
            channel.check_deadlines(now, self.limits)
        self._relieve_unsent(now)

    def _relieve_unsent(self, now: float) -> None:
        """Where more waits to be sent than may, close connections whose clients take nothing, the longest first."""
        excess = sum(channel.total_outbufs_len for channel in self._open) - self.limits.held_bytes
        if excess <= 0:
            return
        silent = [channel for channel in self._open if channel.unread_seconds(now) >= self.limits.unread_seconds]
        for channel in sorted(silent, key=lambda channel: channel.unread_seconds(now), reverse=True):
            if excess <= 0:
                return
            excess -= channel.total_outbufs_len
            channel.handle_close()
