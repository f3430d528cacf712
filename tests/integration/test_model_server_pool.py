"""The idle connections to a model server: which are used again, by a thread and by a task, and which are closed."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest

from mistral_api.event_loop import waiting
from mistral_api.upstream import http_connection
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connections import ModelServerConnections
from mistral_api.upstream.server_address import ServerAddress
from tests.support.event_loops import run_as_task, running_loop
from tests.support.model_server_requests import (
    CHUNKED,
    DEADLINES,
    OK,
    POST,
    Run,
    answer_all,
    ask,
    ask_several,
    connections_to,
)
from tests.support.processes import wait_for
from tests.support.raw_engine import raw_engine, read_request


def test_connection_is_used_again(run: Run) -> None:
    with raw_engine(answer_all) as engine, closing(connections_to(engine)) as connections:
        assert run(lambda: ask_several(connections, 5)) == b"ok" * 5
        assert engine.accepted == 1


@pytest.mark.parametrize("more", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["closed", "with-more-bytes"])
def test_connection_that_cannot_be_used_again_is_replaced(
    run: Run, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model server closes it after the answer, or sends what nobody has asked for."""
    connect, sockets = ServerAddress.connect, list[socket.socket]()

    def remember(address: ServerAddress, call: UpstreamCall, seconds: float) -> socket.socket:
        sockets.append(connect(address, call, seconds))
        return sockets[-1]

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(OK)
        asked.wait(10)
        connection.sendall(more)
        if not more:
            connection.close()
        engine.released.wait(10)

    def ask_twice() -> bytes:
        first = ask(connections)
        asked.set()
        assert waiting.readable(sockets[0], 10)
        return first + ask(connections)

    asked = threading.Event()
    monkeypatch.setattr(ServerAddress, "connect", remember)
    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections:
        assert run(ask_twice) == b"okok"
        assert engine.accepted == 2


def test_connection_that_was_idle_for_too_long_is_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_IDLE_SECONDS", 0.0)
    with raw_engine(answer_all) as engine, closing(connections_to(engine)) as connections:
        assert run(lambda: ask_several(connections, 2)) == b"okok"
        assert engine.accepted == 2


def test_no_more_idle_connections_are_kept_than_there_may_be() -> None:
    with (
        raw_engine(answer_all) as engine,
        closing(ModelServerConnections(f"http://127.0.0.1:{engine.port}", 1)) as few,
    ):
        responses = [few.open(POST, DEADLINES, UpstreamCall()) for _ in range(3)]
        for response in responses:
            assert response.read() == b"ok"
            assert response.read() == b""
            response.close()
            response.close()
        assert ask_several(few, 2) == b"okok"
        assert engine.accepted == 3


def test_connection_with_unread_bytes_is_closed(run: Run) -> None:
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CHUNKED + b"2\r\nok\r\n")
        if not connection.recv(1):
            ended.set()

    def read_a_part() -> bytes:
        response = connections.open(POST, DEADLINES, UpstreamCall())
        piece = response.read()
        response.close()
        return piece

    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections:
        assert run(read_a_part) == b"ok"
        assert ended.wait(10)


def test_call_that_ends_as_it_is_cancelled_leaves_no_connection_behind() -> None:
    with raw_engine(answer_all) as engine, closing(connections_to(engine)) as connections:
        call = UpstreamCall()
        response = connections.open(POST, DEADLINES, call)
        assert b"".join(iter(response.read, b"")) == b"ok"
        call.client_left()
        response.close()
        assert ask(connections) == b"ok"
        assert engine.accepted == 2


def test_connections_that_tasks_and_threads_made_do_not_mix() -> None:
    """The event loop watches the sockets of its tasks until a task closes them."""
    with raw_engine(answer_all) as engine, closing(connections_to(engine)) as connections, running_loop() as loop:
        for _ in range(2):
            assert ask(connections) == b"ok"
            assert run_as_task(loop, lambda: ask(connections)) == b"ok"
        assert engine.accepted == 2


def test_what_a_task_connected_is_closed_in_the_loop_whoever_closes_it() -> None:
    """Else the loop takes the next socket of that number for one that it watches already, and nobody wakes its task."""
    with raw_engine(answer_all) as engine, closing(connections_to(engine)) as connections, running_loop() as loop:
        for _ in range(3):
            response = run_as_task(loop, lambda: connections.open(POST, DEADLINES, UpstreamCall()))
            response.close()
            assert run_as_task(loop, lambda: ask(connections)) == b"ok"
            run_as_task(loop, lambda: None)


def test_closed_connections_keep_nothing_open() -> None:
    with raw_engine(answer_all) as engine:
        connections = connections_to(engine)
        response = connections.open(POST, DEADLINES, UpstreamCall())
        connections.close()
        assert b"".join(iter(response.read, b"")) == b"ok"
        response.close()
        wait_for(lambda: not any(thread.is_alive() for thread in engine.serving), "connections that are closed")
