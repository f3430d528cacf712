"""The connections to a model server, byte by byte: on a thread, and in a task of the event loop."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import certifi
import pytest

from mistral_api.event_loop import waiting
from mistral_api.upstream import http_connection
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connection_errors import BrokenResponse, ConnectionFailure, NotConnected, Silence
from mistral_api.upstream.connections import ModelServerConnections, ModelServerRequest
from mistral_api.upstream.server_address import ServerAddress
from tests.support.certificates import make_certificate
from tests.support.event_loops import run_as_task, running_loop
from tests.support.processes import wait_for
from tests.support.raw_engine import RawEngine, raw_engine, read_request

T = TypeVar("T")
Run = Callable[[Callable[[], bytes]], bytes]
DEADLINES = (5.0, 5.0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
POST = ModelServerRequest("POST", "/v1/completions", b"{}", {})


@pytest.fixture(params=["thread", "task"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """What calls a function: on this thread, and as a task of an event loop."""
    if request.param == "thread":
        yield lambda function: function()
        return
    with running_loop() as loop:
        yield lambda function: run_as_task(loop, function)


def _answer_all(connection: socket.socket) -> None:
    while read_request(connection):
        connection.sendall(OK)


def _connections(engine: RawEngine, scheme: str = "http", host: str = "127.0.0.1") -> ModelServerConnections:
    return ModelServerConnections(f"{scheme}://{host}:{engine.port}", 8)


def _ask(
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


def _several(connections: ModelServerConnections, count: int) -> bytes:
    return b"".join(_ask(connections) for _ in range(count))


def test_connection_is_used_again(run: Run) -> None:
    with raw_engine(_answer_all) as engine, closing(_connections(engine)) as connections:
        assert run(lambda: _several(connections, 5)) == b"ok" * 5
        assert engine.accepted == 1


@pytest.mark.parametrize("more", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["closed", "with-more-bytes"])
def test_connection_that_cannot_be_used_again_is_replaced(run: Run, more: bytes) -> None:
    """The model server closes it after the answer, or sends what nobody has asked for."""
    served = threading.Event()

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(OK)
        connection.sendall(more)
        if not more:
            connection.close()
        served.set()
        engine.released.wait(10)

    def ask_twice() -> bytes:
        first = _ask(connections)
        assert waiting.aside(lambda: served.wait(10))
        waiting.sleep(0.05)  # the end arrives
        return first + _ask(connections)

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections:
        assert run(ask_twice) == b"okok"
        assert engine.accepted == 2


def test_connection_that_was_idle_for_too_long_is_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_IDLE_SECONDS", 0.0)
    with raw_engine(_answer_all) as engine, closing(_connections(engine)) as connections:
        assert run(lambda: _several(connections, 2)) == b"okok"
        assert engine.accepted == 2


def test_no_more_idle_connections_are_kept_than_there_may_be() -> None:
    with (
        raw_engine(_answer_all) as engine,
        closing(ModelServerConnections(f"http://127.0.0.1:{engine.port}", 1)) as few,
    ):
        responses = [few.open(POST, DEADLINES, UpstreamCall()) for _ in range(3)]
        for response in responses:
            assert response.read() == b"ok"
            assert response.read() == b""
            response.close()
            response.close()
        assert _several(few, 2) == b"okok"
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

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections:
        assert run(read_a_part) == b"ok"
        assert ended.wait(10)


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

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections:
        assert run(read) == b"onetwo|three"


def test_long_bodies_pass_both_ways_whatever_the_sockets_hold(run: Run) -> None:
    body = bytes(range(256)) * (8 << 10)

    def echo(connection: socket.socket) -> None:
        time.sleep(0.1)  # the socket fills up meanwhile
        got = read_request(connection).partition(b"\r\n\r\n")[2]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(got) + got)

    request = ModelServerRequest("POST", "/x", body, {})
    with raw_engine(echo) as engine, closing(_connections(engine)) as connections:
        assert run(lambda: _ask(connections, request)) == body


def test_answer_of_a_server_that_does_not_read_to_the_end_is_read(run: Run) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        connection.shutdown(socket.SHUT_RD)
        engine.released.wait(0.3)

    with raw_engine(refuse) as engine, closing(_connections(engine)) as connections:
        assert run(lambda: _ask(connections, ModelServerRequest("POST", "/x", b"{}", {}))) == b"big"


def test_request_has_one_head_with_what_every_request_has() -> None:
    seen: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        while request := read_request(connection):
            seen.append(request)
            connection.sendall(OK)

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections:
        headers = {"Authorization": "Bearer key", "traceparent": "00-1-2-01"}
        _ask(connections, ModelServerRequest("POST", "/v1/x?a=b", b"{}", headers))
        _ask(connections, ModelServerRequest("GET", "/health", None, {}))
        _ask(connections, ModelServerRequest("POST", "/slots/0", None, {}))
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

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections, pytest.raises(failure):
        run(lambda: _ask(connections))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED])
def test_silence_is_a_failure_when_its_time_is_over(run: Run, answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)
        engine.released.wait(10)

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections, pytest.raises(Silence):
        run(lambda: _ask(connections, deadlines=(5.0, 0.1)))


def test_server_that_takes_nothing_of_a_request_is_a_failure_when_its_time_is_over(run: Run) -> None:
    request = ModelServerRequest("POST", "/x", b"x" * (32 << 20), {})

    def serve(connection: socket.socket) -> None:
        engine.released.wait(10)

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections, pytest.raises(Silence):
        run(lambda: _ask(connections, request, deadlines=(5.0, 0.1)))


def _cancelled_after(seconds: float, act: Callable[[UpstreamCall], bytes]) -> Callable[[], bytes]:
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


@pytest.mark.parametrize("answer", [b"", CHUNKED + b"2\r\nok\r\n"], ids=["before-the-answer", "in-the-body"])
def test_cancelled_call_ends_at_once(run: Run, answer: bytes) -> None:
    left = threading.Event()

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)
        if not connection.recv(1):
            left.set()

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections:
        assert run(_cancelled_after(0.1, lambda call: _ask(connections, call=call))) == b"cancelled"
        assert left.wait(10)


def test_cancelled_call_ends_at_once_while_its_request_is_sent(run: Run) -> None:
    request = ModelServerRequest("POST", "/x", b"x" * (32 << 20), {})

    def serve(connection: socket.socket) -> None:
        engine.released.wait(10)

    with raw_engine(serve) as engine, closing(_connections(engine)) as connections:
        assert run(_cancelled_after(0.1, lambda call: _ask(connections, request, call=call))) == b"cancelled"


def test_call_that_ends_as_it_is_cancelled_leaves_no_connection_behind() -> None:
    with raw_engine(_answer_all) as engine, closing(_connections(engine)) as connections:
        call = UpstreamCall()
        response = connections.open(POST, DEADLINES, call)
        assert b"".join(iter(response.read, b"")) == b"ok"
        call.client_left()
        response.close()
        assert _ask(connections) == b"ok"
        assert engine.accepted == 2


def test_wait_that_no_socket_ends_is_woken_by_a_cancelled_call(run: Run) -> None:
    def wait(call: UpstreamCall) -> bytes:
        signal = waiting.Signal()
        with call.waking(signal.set):
            return b"woken" if signal.wait(5) else b""

    assert run(_cancelled_after(0.05, wait)) == b"woken"
    cancelled = UpstreamCall()
    cancelled.client_left()
    assert run(lambda: wait(cancelled)) == b"woken"


def test_tls_passes_everything_that_a_plain_socket_does(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = make_certificate(tmp_path, "localhost")
    monkeypatch.setattr(certifi, "where", lambda: str(path))
    body = b"x" * (1 << 20)

    def echo(connection: socket.socket) -> None:
        while request := read_request(connection):
            got = request.partition(b"\r\n\r\n")[2]
            connection.sendall(CHUNKED + b"3\r\none\r\n")
            time.sleep(0.05)
            connection.sendall(b"%x\r\n" % len(got) + got + b"\r\n0\r\n\r\n")

    def ask_twice() -> bytes:
        return _ask(connections, ModelServerRequest("POST", "/x", body, {})) + _ask(connections)

    listener = socket.create_server(("127.0.0.1", 0))
    with (
        raw_engine(echo, listener, context) as engine,
        closing(_connections(engine, "https", "localhost")) as connections,
    ):
        assert run(ask_twice) == b"one" + body + b"one{}"
        assert engine.accepted == 1


@pytest.mark.parametrize("speaks", ["silence", "then-cancelled", "closes"])
def test_tls_handshake_that_does_not_end_is_a_failure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaks: str
) -> None:
    def serve(connection: socket.socket) -> None:
        if speaks != "closes":
            engine.released.wait(10)

    with raw_engine(serve) as engine, closing(_connections(engine, "https", "localhost")) as connections:
        if speaks == "then-cancelled":
            with pytest.raises(OSError, match="EOF"):
                run(_cancelled_after(0.1, lambda call: _ask(connections, call=call)))
            return
        with pytest.raises((Silence, OSError)):
            run(lambda: _ask(connections, deadlines=(0.2, 5.0)))


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets in Python for Windows")
def test_unix_socket_is_connected_to_in_place_of_a_host(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    with (
        raw_engine(_answer_all, listener) as engine,
        closing(ModelServerConnections("http://localhost", 8, path)) as unix,
    ):
        assert run(lambda: _several(unix, 2)) == b"okok"
        assert engine.accepted == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets in Python for Windows")
def test_unix_socket_whose_queue_is_full_is_tried_until_the_deadline(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with (
        socket.socket(socket.AF_UNIX) as listener,
        closing(ModelServerConnections("http://localhost", 8, path)) as unix,
    ):
        listener.bind(path)
        listener.listen(0)
        waits = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in waits:
            each.setblocking(False)
            each.connect_ex(path)
        with pytest.raises(NotConnected) as refused:
            run(lambda: _ask(unix, deadlines=(0.1, 5.0)))
        for each in waits:
            each.close()
    assert isinstance(refused.value.__cause__, TimeoutError)


def test_each_address_of_a_name_is_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_engine(_answer_all) as engine, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))

        def look_up(host: str, _port: int, *, type: int, flags: int = 0) -> list[object]:
            if flags:
                raise socket.gaierror("no address")
            assert host == "engine.example"
            return [
                (socket.AF_INET, type, 0, "", ("127.0.0.1", each)) for each in (nobody.getsockname()[1], engine.port)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with closing(_connections(engine, host="engine.example")) as connections:
            assert run(lambda: _ask(connections)) == b"ok"


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "prefix"),
    [
        ("http://gpu", "gpu", 80, "gpu", ""),
        ("https://GPU:443/a/b/", "gpu", 443, "gpu", "/a/b"),
        ("http://[::1]:8000", "::1", 8000, "[::1]:8000", ""),
        ("http://[fe80::1%25eth0]", "fe80::1%eth0", 80, "[fe80::1]", ""),
        ("http://bücher.example/ä", "bücher.example", 80, "xn--bcher-kva.example", "/%C3%A4"),
        ("http://Ann:word@gpu:1/x%20y", "gpu", 1, "gpu:1", "/x%20y"),
    ],
)
def test_url_names_host_port_and_prefix(url: str, host: str, port: int, authority: str, prefix: str) -> None:
    address = ServerAddress.of(url)
    assert (address.host, address.port, address.authority, address.prefix) == (host, port, authority, prefix)
    assert "word" not in repr(address)


def test_connections_that_tasks_and_threads_made_do_not_mix() -> None:
    """The event loop watches the sockets of its tasks until a task closes them."""
    with raw_engine(_answer_all) as engine, closing(_connections(engine)) as connections, running_loop() as loop:
        for _ in range(2):
            assert _ask(connections) == b"ok"
            assert run_as_task(loop, lambda: _ask(connections)) == b"ok"
        assert engine.accepted == 2


def test_what_a_task_connected_is_closed_in_the_loop_whoever_closes_it() -> None:
    """Else the loop takes the next socket of that number for one that it watches already, and nobody wakes its task."""
    with raw_engine(_answer_all) as engine, closing(_connections(engine)) as connections, running_loop() as loop:
        for _ in range(3):
            response = run_as_task(loop, lambda: connections.open(POST, DEADLINES, UpstreamCall()))
            response.close()
            assert run_as_task(loop, lambda: _ask(connections)) == b"ok"
            run_as_task(loop, lambda: None)


def test_closed_connections_keep_nothing_open() -> None:
    with raw_engine(_answer_all) as engine:
        connections = _connections(engine)
        response = connections.open(POST, DEADLINES, UpstreamCall())
        connections.close()
        assert b"".join(iter(response.read, b"")) == b"ok"
        response.close()
        wait_for(lambda: not any(thread.is_alive() for thread in engine.serving), "connections that are closed")
