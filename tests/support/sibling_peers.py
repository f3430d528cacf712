"""What several API processes of one ``bin/serve`` have of each other, all in one process."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from mistral_api.event_loop.loop import EventLoop
from mistral_api.ipc.peer import Peer
from mistral_api.ipc.siblings import Hub, Siblings
from tests.support.event_loops import run_as_task, running_loop


class SiblingPeers:
    """``first`` and ``others``: what each of them knows of the rest, each with an event loop of its own."""

    def __init__(self, loops: list[EventLoop]) -> None:
        self.hub = Hub()
        self.first = Siblings(hub=self.hub)
        self._loops = loops
        self._pairs = [self._pair(number) for number in range(1, len(loops))]
        self.others = [Siblings(first=outer) for _, outer in self._pairs]

    @staticmethod
    def _pair(number: int) -> tuple[Peer, Peer]:
        inner, outer = socket.socketpair()
        return Peer(inner, f"process {number}"), Peer(outer, "the first process")

    def start(self) -> None:
        """Have them speak with each other, once everything has been offered and handled."""
        for loop, (inner, outer) in zip(self._loops[1:], self._pairs, strict=True):
            self.hub.join(inner)
            inner.start(self._loops[0])
            outer.start(loop)

    def end(self, number: int) -> None:
        """End one of the others, as the first process sees it when it dies. Return once that is known."""
        inner, outer = self._pairs[number]
        outer.close()
        run_as_task(self._loops[number + 1], lambda: None)
        while not inner.ended:
            inner.catch_up()

    def close(self) -> None:
        """Close all ways."""
        for inner, outer in self._pairs:
            inner.close()
            outer.close()
        for loop in self._loops:
            run_as_task(loop, lambda: None)


@contextlib.contextmanager
def sibling_peers(others: int = 2) -> Iterator[SiblingPeers]:
    """Make what so many processes beside the first one have of each other. They are closed in the end."""
    with contextlib.ExitStack() as stack:
        processes = SiblingPeers([stack.enter_context(running_loop()) for _ in range(others + 1)])
        stack.callback(processes.close)
        yield processes
