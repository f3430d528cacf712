"""Failed attempts of several API processes: the first one counts them, and tells all whom to block (API_PROCESSES).

Nobody waits for an answer, since the web server asks in its event loop. So a few more failures than usual may pass.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from mistral_api.ipc.peer import Peer
from mistral_api.ipc.siblings import Hub, Siblings
from mistral_api.security.addresses import network_of
from mistral_api.security.failed_attempts import MOST_ADDRESSES, AddressBlocked, FailedAttempts, FailureCounter

_NOTE, _BLOCK = "failures.note", "failures.block"


def failure_counter(siblings: Siblings) -> FailureCounter:
    """Return what counts the failures of this process, together with those of the others."""
    if siblings.first is not None:
        return SharedFailures(siblings.first)
    attempts = FailedAttempts()
    if siblings.hub is not None:
        offer_failures(attempts, siblings.hub)
    return attempts


def offer_failures(attempts: FailedAttempts, hub: Hub) -> None:
    """Have the first process count for the others, and tell them whom it blocks."""

    def tell_all(network: str, seconds: float) -> None:
        for peer in hub.peers:
            peer.tell(_BLOCK, network, seconds)

    def note(peer: Peer, network: str) -> None:
        try:
            attempts.note_network(network)
        except AddressBlocked as blocked:  # the other process may have begun after the block
            peer.tell(_BLOCK, network, blocked.retry_after)

    attempts.on_block = tell_all
    hub.offer(lambda peer: peer.handle(_NOTE, lambda network: note(peer, network)))


class SharedFailures:
    """Tells the first process of failures, and refuses whom that one blocks. Safe to use from many threads."""

    def __init__(self, first: Peer, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = first
        self._clock = clock
        self._lock = threading.Lock()
        # Until when each network is blocked, by the clock.
        self._blocked: OrderedDict[str, float] = OrderedDict()
        first.handle(_BLOCK, self._block)

    def note(self, address: str | None) -> None:
        """Tell of a failure. Raises AddressBlocked where the address has had too many of them."""
        network = network_of(address or "")
        left = self._blocked.get(network, float("-inf")) - self._clock()
        if left > 0:
            raise AddressBlocked(left)
        self._first.tell(_NOTE, network)

    def _block(self, network: str, seconds: float) -> None:
        with self._lock:
            self._blocked[network] = self._clock() + seconds
            self._blocked.move_to_end(network)
            if len(self._blocked) > MOST_ADDRESSES:
                self._blocked.popitem(last=False)
