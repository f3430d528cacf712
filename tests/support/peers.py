"""A first API process and others, in one process: the ends of pairs of sockets, read by one event loop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from mistral_api.event_loop.loop import EventLoop
from mistral_api.ipc.peer import Peer
from mistral_api.ipc.siblings import Hub
from tests.support.event_loops import run_as_task, running_loop


@contextlib.contextmanager
def joined_peers(hub: Hub, count: int = 2, *, last_loop: EventLoop | None = None) -> Iterator[list[Peer]]:
    """Yield the ends of so many other processes, whose way leads to the first one.

    Whatever the hub offers is offered before. To handle something at these ends is late now: see :func:`pairs`.
    """
    with pairs(count, last_loop=last_loop) as (inner, outer, start):
        for peer in inner:
            hub.join(peer)
        start()
        yield outer


@contextlib.contextmanager
def pairs(
    count: int = 2, *, last_loop: EventLoop | None = None
) -> Iterator[tuple[list[Peer], list[Peer], Callable[[], None]]]:
    """Yield the inner and the outer ends of so many pairs, and what starts them.

    ``last_loop``: where the first process reads what the last one says. While that loop hangs, the first process hears
    nothing of it until somebody catches up.
    """
    ends = [socket.socketpair() for _ in range(count)]
    inner = [Peer(ours, f"process {number}") for number, (ours, _) in enumerate(ends, 2)]
    outer = [Peer(theirs, "the first process") for _, theirs in ends]
    with running_loop() as loop:

        def start() -> None:
            for peer in (*inner[:-1], *outer):
                peer.start(loop)
            inner[-1].start(last_loop or loop)

        try:
            yield inner, outer, start
        finally:
            start()
            for peer in (*inner, *outer):
                peer.close()
            for each in (loop, last_loop or loop):
                run_as_task(each, lambda: None)  # it has closed their sockets
