"""How a request to a model server fails or is cancelled: on a thread, and in a task of the event loop."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest

from mistral_api.event_loop import waiting
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connection_errors import BrokenResponse, Silence
from mistral_api.upstream.connections import ModelServerRequest
from tests.support.model_server_requests import (
    CHUNKED,
    Run,
    ask,
    cancelled_after,
    connections_to,
)
from tests.support.raw_engine import raw_engine, read_request


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", BrokenResponse),
        (b"garbage\r\n\r\n", BrokenResponse),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", BrokenResponse),
        (CHUNKED + b"2\r\nok\r\n", BrokenResponse),
    ],
)
def test_broken_responses_are_failures(run: Run, answer: bytes, failure: type[Exception]) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections, pytest.raises(failure):
        run(lambda: ask(connections))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED])
def test_silence_is_a_failure_when_its_time_is_over(run: Run, answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)
        engine.released.wait(10)

    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections, pytest.raises(Silence):
        run(lambda: ask(connections, deadlines=(5.0, 0.1)))


def test_server_that_takes_nothing_of_a_request_is_a_failure_when_its_time_is_over(run: Run) -> None:
    request = ModelServerRequest("POST", "/x", b"x" * (32 << 20), {})

    def serve(connection: socket.socket) -> None:
        engine.released.wait(10)

    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections, pytest.raises(Silence):
        run(lambda: ask(connections, request, deadlines=(5.0, 0.1)))


@pytest.mark.parametrize("answer", [b"", CHUNKED + b"2\r\nok\r\n"], ids=["before-the-answer", "in-the-body"])
def test_cancelled_call_ends_at_once(run: Run, answer: bytes) -> None:
    left = threading.Event()

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)
        if not connection.recv(1):
            left.set()

    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections:
        assert run(cancelled_after(0.1, lambda call: ask(connections, call=call))) == b"cancelled"
        assert left.wait(10)


def test_cancelled_call_ends_at_once_while_its_request_is_sent(run: Run) -> None:
    request = ModelServerRequest("POST", "/x", b"x" * (32 << 20), {})

    def serve(connection: socket.socket) -> None:
        engine.released.wait(10)

    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections:
        assert run(cancelled_after(0.1, lambda call: ask(connections, request, call=call))) == b"cancelled"


def test_wait_that_no_socket_ends_is_woken_by_a_cancelled_call(run: Run) -> None:
    def wait(call: UpstreamCall) -> bytes:
        signal = waiting.Signal()
        with call.waking(signal.set):
            return b"woken" if signal.wait(5) else b""

    assert run(cancelled_after(0.05, wait)) == b"woken"
    cancelled = UpstreamCall()
    cancelled.client_left()
    assert run(lambda: wait(cancelled)) == b"woken"
