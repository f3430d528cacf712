"""What several API processes of one ``bin/serve`` have of each other, all in one process and one event loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from mistral_api.event_loop.loop import EventLoop
from mistral_api.ipc.peer import Peer
from mistral_api.ipc.siblings import Hub, Siblings
from tests.support.peers import pairs


class SiblingPeers:
    """``first`` and ``others``: what each of them knows of the rest."""

    def __init__(self, inner: list[Peer], outer: list[Peer], start: Callable[[], None]) -> None:
        self.hub = Hub()
        self.first = Siblings(hub=self.hub)
        self.others = [Siblings(first=peer) for peer in outer]
        self._inner, self._outer, self._start = inner, outer, start

    def start(self) -> None:
        """Have them speak with each other, once everything has been offered and handled."""
        for peer in self._inner:
            self.hub.join(peer)
        self._start()

    def end(self, number: int) -> None:
        """End one of the others, as the first process sees it when it dies. Return once that is known."""
        self._outer[number].close()
        while not self._inner[number].ended:
            self._inner[number].catch_up()


@contextlib.contextmanager
def sibling_peers(others: int = 2, *, last_loop: EventLoop | None = None) -> Iterator[SiblingPeers]:
    """Make what so many processes beside the first one have of each other. They are closed in the end.

    ``last_loop``: where the first one reads what the last one says.
    """
    with pairs(others, last_loop=last_loop) as (inner, outer, start):
        yield SiblingPeers(inner, outer, start)
