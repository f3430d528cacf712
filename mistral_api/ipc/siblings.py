"""The API processes of one ``bin/serve``: the first one has what all share, and the others ask it.

What must be one for all (the queue for the slots, the conversations in memory, counts of limits, cached answers,
responses in the background) is in the memory of the first process, and is offered to every other one that joins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mistral_api.ipc.peer import Peer


class Hub:
    """The first process's ways to the others."""

    def __init__(self) -> None:
        self._offers: list[Callable[[Peer], None]] = []
        # Replaced as a whole, so that no lock is needed to read it.
        self.peers: tuple[Peer, ...] = ()

    def offer(self, offer: Callable[[Peer], None]) -> None:
        """Have a function called with each process that joins: it says what is done for it (:meth:`Peer.handle`)."""
        self._offers.append(offer)

    def join(self, peer: Peer) -> None:
        """Offer everything to a process that has not been started yet. One thread calls this."""
        for offer in self._offers:
            offer(peer)
        self.peers = (*(each for each in self.peers if not each.ended), peer)

    def catch_up(self) -> None:
        """Do what all others have asked and told until now: what a client has seen of one is known here then.

        Not to be called by a handler that does not wait.
        """
        for peer in self.peers:
            peer.catch_up()

    def close(self) -> None:
        """Close the ways to all."""
        for peer in self.peers:
            peer.close()


@dataclass(frozen=True, slots=True)
class Siblings:
    """The other API processes of one ``bin/serve``: ``hub`` is there in the first one, ``first`` in all others."""

    hub: Hub | None = None
    first: Peer | None = None


ALONE = Siblings()
