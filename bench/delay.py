"""A TCP proxy that adds latency and counts round trips. Bytes arrive in order, half a round trip after they left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def delayed_proxy(socket_file: Path, round_trip_seconds: float) -> Iterator[DelayedProxy]:
    """Forward a loopback port to a Unix socket with that round trip time; yield the proxy."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = DelayedProxy(socket_file, round_trip_seconds / 2)
    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(proxy.forward_connection, "127.0.0.1", 0), loop
    ).result(10)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_close_connections(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


async def _close_connections(server: asyncio.Server) -> None:
    server.close()
    connections = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if connections:
        await asyncio.wait(connections, timeout=5)


class DelayedProxy:
    """A running proxy. ``round_trips`` counts how often a client that had got an answer, or was new, sent something."""

    def __init__(self, socket_file: Path, one_way_seconds: float) -> None:
        self.port = 0
        self.round_trips = 0
        self._socket_file = socket_file
        self._one_way_seconds = one_way_seconds

    async def forward_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward the bytes of one connection in both directions."""
        far_reader, far_writer = await asyncio.open_unix_connection(str(self._socket_file))
        waiting = False

        def sent() -> None:
            nonlocal waiting
            self.round_trips, waiting = self.round_trips + (not waiting), True

        def answered() -> None:
            nonlocal waiting
            waiting = False

        await asyncio.gather(self._forward(reader, far_writer, sent), self._forward(far_reader, writer, answered))

    async def _forward(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, note: Callable[[], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 20):
                note()
                loop.call_later(self._one_way_seconds, target.write, data)
        loop.call_later(self._one_way_seconds, target.close)
