"""Requests to a model server, byte by byte, as code sends them that runs on a thread or as a task."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connection_errors import ConnectionFailure
from mistral_api.upstream.connections import ModelServerConnections, ModelServerRequest
from tests.support.raw_engine import RawEngine, read_request

# What calls a function: on this thread, or as a task.
Run = Callable[[Callable[[], bytes]], bytes]
DEADLINES = (5.0, 5.0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
POST = ModelServerRequest("POST", "/v1/completions", b"{}", {})


def answer_all(connection: socket.socket) -> None:
    """Answer every request of a connection."""
    while read_request(connection):
        connection.sendall(OK)


def connections_to(engine: RawEngine, scheme: str = "http", host: str = "127.0.0.1") -> ModelServerConnections:
    """Return connections to an engine of this test."""
    return ModelServerConnections(f"{scheme}://{host}:{engine.port}", 8)


def ask(
    connections: ModelServerConnections,
    request: ModelServerRequest = POST,
    call: UpstreamCall | None = None,
    deadlines: tuple[float, float] = DEADLINES,
) -> bytes:
    """Return the whole body of a response."""
    response = connections.open(request, deadlines, call or UpstreamCall())
    try:
        return b"".join(iter(response.read, b""))
    finally:
        response.close()


def ask_several(connections: ModelServerConnections, count: int) -> bytes:
    """Send requests, one after the other, and return all bodies as one."""
    return b"".join(ask(connections) for _ in range(count))


def cancelled_after(seconds: float, act: Callable[[UpstreamCall], bytes]) -> Callable[[], bytes]:
    """Return what lets a call begin, and has another thread cancel it."""

    def cancelled() -> bytes:
        call = UpstreamCall()
        timer = threading.Timer(seconds, call.client_left)
        timer.start()
        began = time.monotonic()
        try:
            return act(call)
        except ConnectionFailure:
            assert call.cancelled
            assert time.monotonic() - began < 4
            return b"cancelled"
        finally:
            timer.cancel()

    return cancelled
