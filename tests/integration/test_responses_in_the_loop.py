"""Responses that wait in the event loop of the web server: they hold no thread, and their connection stays."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from mistral_api.serving import heartbeat, web_server
from mistral_api.serving.response_task import ResponseTask
from tests.support.processes import wait_for
from tests.support.web_servers import TestServer, get, read_to_end, response_of, running_web_server

GET = b"GET /task HTTP/1.1\r\nHost: test\r\n\r\n"
WAITING = 300


@pytest.fixture
def server(data_dir: Path) -> Iterator[TestServer]:
    with running_web_server(data_dir, api_threads=2) as running:
        yield running


def test_many_responses_are_waited_for_without_a_thread_each(server: TestServer) -> None:
    before = set(threading.enumerate())
    connections = [server.connect(GET) for _ in range(WAITING)]
    wait_for(lambda: server.app.streams == WAITING, "all wait")
    assert len(set(threading.enumerate()) - before) < WAITING / 10
    assert server.ask("/health/live")[0] == 200
    assert server.ask("/echo")[0] == 200
    server.app.go_on.set()
    for connection in connections:
        assert response_of(connection) == (200, b"data: begun\n\ndata: [DONE]\n\n")
        connection.close()


def test_a_whole_response_is_waited_for_on_a_thread_while_it_is_the_only_one(server: TestServer) -> None:
    lone = server.connect(get("/task/whole"))
    wait_for(lambda: server.app.streams == 1, "it waits")
    others = [server.connect(get(path)) for path in ("/task/whole", "/task")]
    wait_for(lambda: server.app.streams == 3, "the others wait")
    assert server.app.in_tasks == [False, True, True]
    server.app.go_on.set()
    for connection in (lone, *others):
        assert response_of(connection) == (200, b"data: begun\n\ndata: [DONE]\n\n")
        connection.close()
    wait_for(lambda: server.ask("/task/whole")[0] == 200 and not server.app.in_tasks[-1], "one is alone again")


def test_a_client_that_leaves_a_thread_is_told_of(server: TestServer) -> None:
    with server.connect(get("/task/whole")):
        wait_for(lambda: server.app.streams == 1, "it waits")
    assert server.app.left.wait(10)
    server.app.go_on.set()
    wait_for(lambda: server.app.streams == 0, "its body is closed")


def test_a_stream_does_not_end_its_connection(server: TestServer) -> None:
    server.app.go_on.set()
    client = HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(3):
        client.request("GET", "/task")
        assert client.getresponse().read().endswith(b"data: [DONE]\n\n")
    assert len(server.connections) == 1
    client.close()


@pytest.mark.parametrize("path", ["/task", "/echo"])
def test_a_response_is_released_at_its_end_and_not_by_a_collection_of_garbage(server: TestServer, path: str) -> None:
    server.app.go_on.set()
    gc.collect()
    gc.disable()
    try:
        assert server.ask(path)[0] == 200
        wait_for(lambda: not any(type(each) is ResponseTask for each in gc.get_objects()), "it is released")
    finally:
        gc.enable()


def test_requests_that_come_at_once_on_one_connection_are_answered_in_order(server: TestServer) -> None:
    with server.connect(GET + b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}") as connection:
        wait_for(lambda: server.app.streams == 1, "one waits")
        server.app.go_on.set()
        connection.sendall(get("/echo"))
        received = read_to_end(connection)
    assert [received.find(what) for what in (b"[DONE]", b'"POST"', b'"GET"')] == sorted(
        received.index(what) for what in (b"[DONE]", b'"POST"', b'"GET"')
    )


def test_a_client_that_leaves_is_told_of_and_its_body_is_closed(server: TestServer) -> None:
    with server.connect(GET):
        wait_for(lambda: server.app.streams == 1, "one waits")
    assert server.app.left.wait(10)
    server.app.go_on.set()
    wait_for(lambda: server.app.streams == 0, "its body is closed")
    assert len(server.connections) == 0


def test_a_client_that_reads_nothing_holds_its_own_stream_up_alone(server: TestServer) -> None:
    server.app.go_on.set()
    with server.connect(get("/task/flood")) as idle:
        wait_for(lambda: server.app.flood_chunks > 3, "the stream has begun")
        assert server.ask("/task")[0] == 200
        held = server.app.flood_chunks
        assert held * 65536 < 64 << 20
        server.app.released.set()
        assert len(read_to_end(idle)) >= held * 65536


def test_a_body_that_fails_before_its_response_has_begun_is_an_error(
    server: TestServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.app.go_on.set()
    status, _ = server.ask("/task/failing")
    assert status == 500
    assert "unforeseen failure in /task/failing" in caplog.text


def test_a_client_is_told_that_its_response_is_waited_for(server: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
    with server.connect(get("/task")) as connection:
        received = b""
        while received.count(b": waiting") < 2:
            received += connection.recv(65536)
        server.app.go_on.set()
        received += read_to_end(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_the_end_of_the_server_waits_for_what_is_being_sent(data_dir: Path) -> None:
    with running_web_server(data_dir) as server, server.connect(GET) as connection:
        wait_for(lambda: server.app.streams == 1, "one waits")
        threading.Timer(0.1, server.app.go_on.set).start()
        server.web_server.close()
        assert read_to_end(connection).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_the_end_of_the_server_ends_what_waits(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "STOP_SECONDS", 0.2)
    with running_web_server(data_dir) as server:
        connection = server.connect(GET)
        wait_for(lambda: server.app.streams == 1, "one waits")
        server.web_server.close()
        assert server.app.streams == 0
        assert read_to_end(connection) == b""
        connection.close()
