"""What is sent to a model server, and what is read of its answer: on a thread, and in a task of the event loop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import closing

import pytest

from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connections import ModelServerConnections, ModelServerRequest
from tests.support.model_server_requests import (
    CHUNKED,
    DEADLINES,
    OK,
    POST,
    Run,
    ask,
    connections_to,
)
from tests.support.raw_engine import raw_engine, read_request


def test_what_arrives_together_is_one_piece_and_comes_at_once(run: Run) -> None:
    go_on = threading.Event()

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CHUNKED + b"3\r\none\r\n3\r\ntwo\r\n")
        go_on.wait(10)
        connection.sendall(b"5\r\nthree\r\n0\r\n\r\n")

    def read() -> bytes:
        response = connections.open(POST, DEADLINES, UpstreamCall())
        first = response.read()
        go_on.set()
        pieces = [first, *iter(response.read, b"")]
        response.close()
        return b"|".join(pieces)

    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections:
        assert run(read) == b"onetwo|three"


def test_long_bodies_pass_both_ways_whatever_the_sockets_hold(run: Run) -> None:
    body = bytes(range(256)) * (8 << 10)

    def echo(connection: socket.socket) -> None:
        time.sleep(0.1)  # the socket fills up meanwhile
        got = read_request(connection).partition(b"\r\n\r\n")[2]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(got) + got)

    request = ModelServerRequest("POST", "/x", body, {})
    with raw_engine(echo) as engine, closing(connections_to(engine)) as connections:
        assert run(lambda: ask(connections, request)) == body


def test_answer_of_a_server_that_does_not_read_to_the_end_is_read(run: Run) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        connection.shutdown(socket.SHUT_RD)
        engine.released.wait(0.3)

    with raw_engine(refuse) as engine, closing(connections_to(engine)) as connections:
        assert run(lambda: ask(connections, ModelServerRequest("POST", "/x", b"{}", {}))) == b"big"


def test_request_has_one_head_with_what_every_request_has() -> None:
    seen: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        while request := read_request(connection):
            seen.append(request)
            connection.sendall(OK)

    with raw_engine(serve) as engine, closing(connections_to(engine)) as connections:
        headers = {"Authorization": "Bearer key", "traceparent": "00-1-2-01"}
        ask(connections, ModelServerRequest("POST", "/v1/x?a=b", b"{}", headers))
        ask(connections, ModelServerRequest("GET", "/health", None, {}))
        ask(connections, ModelServerRequest("POST", "/slots/0", None, {}))
    lines = [head.split(b"\r\n") for head, _, _ in (request.partition(b"\r\n\r\n") for request in seen)]
    assert [each[0] for each in lines] == [
        b"POST /v1/x?a=b HTTP/1.1",
        b"GET /health HTTP/1.1",
        b"POST /slots/0 HTTP/1.1",
    ]
    assert lines[0][1] == b"Host: 127.0.0.1:%d" % engine.port
    assert lines[0][-3:] == [b"Authorization: Bearer key", b"traceparent: 00-1-2-01", b"Content-Length: 2"]
    assert [any(line.startswith(b"Content-Length") for line in each) for each in lines] == [True, False, True]


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/a b", {}), ("/a\r\nX: y", {}), ("/ä", {}), ("/", {"X": "a\r\nY: b"}), ("/", {"X": "a\x00"})],
)
def test_nothing_of_a_request_becomes_another_header(path: str, headers: Mapping[str, str]) -> None:
    with (
        closing(ModelServerConnections("http://127.0.0.1:1", 1)) as connections,
        pytest.raises(ValueError, match=r"path|header"),
    ):
        connections.open(ModelServerRequest("GET", path, None, headers), DEADLINES, UpstreamCall())
