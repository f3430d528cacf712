"""Connections of clients that send slowly, badly, too much or not at all, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from mistral_api.errors import ApiError, Unauthorized
from mistral_api.security.request_head import RequestHead
from mistral_api.serving.channel import Phase
from mistral_api.serving.hooks import Hooks
from tests.support.processes import wait_for
from tests.support.request_fuzz import requests_like_http
from tests.support.web_servers import (
    TestServer,
    assert_refused,
    get,
    post,
    read_to_end,
    response_of,
    running_web_server,
)

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    """A server with the default bounds."""
    with running_web_server(tmp_path_factory.mktemp("web")) as running:
        yield running


@contextlib.contextmanager
def opened(server: TestServer, count: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    """Keep so many connections open, each with these bytes sent."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect(data)) for _ in range(count)]


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
        (b"GET http://[::1/x HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: test\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"y" * MIB + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * MIB + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414),
        (b"G" * MIB, 414),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03", 400),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/1.1\nHost: test\n\n", 400),
        (b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n", 405),
        (b"HELO test\r\n", 400),
        (post(99 * MIB), 413),
        (post(99 * MIB, more="Expect: 100-continue\r\n"), 413),
        (post(5, more="Expect: tea\r\n"), 417),
    ],
)  # fmt: skip
def test_malformed_request_is_answered_and_its_connection_closed(server: TestServer, sent: bytes, status: int) -> None:
    before = len(server.app.requests)
    with server.connect(sent + get("/smuggled")) as connection:
        assert_refused(read_to_end(connection), status)
    assert server.app.requests[before:] == []


def test_answer_to_a_refused_body_reaches_a_client_that_still_sends(server: TestServer) -> None:
    with server.connect(post(64 * MIB)) as connection:
        for _ in range(64):
            connection.sendall(b"x" * MIB)
        connection.shutdown(socket.SHUT_WR)
        assert_refused(read_to_end(connection), 413)
    assert server.connections.held.total == 0


def test_answer_to_head_has_no_body(server: TestServer) -> None:
    with server.connect(b"HEAD /\x01 HTTP/1.1\r\nHost: test\r\n\r\n") as connection:
        assert read_to_end(connection).endswith(b"\r\n\r\n")


def test_pipelined_requests_are_answered_in_order(server: TestServer) -> None:
    with server.connect(b"GET /1 HTTP/1.1\r\nHost: test\r\n\r\n" * 20 + get("/last")) as connection:
        received = read_to_end(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 21
    assert received.endswith(b'"path":"/last","query":"","length":0}')


def test_client_that_expects_continue_gets_it_before_it_sends_its_body(server: TestServer) -> None:
    with server.connect(post(5, more="Expect: 100-Continue\r\nConnection: close\r\n")) as connection:
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert response_of(connection)[0] == 200


def test_request_without_a_body_that_expects_continue_is_answered(server: TestServer) -> None:
    """Waitress would send "100 Continue" and wait for ever."""
    with server.connect(b"GET /x HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n\r\n") as connection:
        assert response_of(connection)[0] == 200


def test_chunked_body_is_put_together(server: TestServer) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with server.connect(head) as connection:
        for _ in range(20):
            connection.sendall(b"%x\r\n%b\r\n" % (MIB, b"x" * MIB))
        connection.sendall(b"0\r\n\r\n")
        assert response_of(connection) == (200, b'{"method":"POST","path":"/echo","query":"","length":20971520}')
    assert server.connections.held.total == 0


def test_strangers_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    def refuse(head: RequestHead) -> ApiError | None:
        known = head.header("AUTHORIZATION") == "Bearer good"
        return None if known else Unauthorized(f"No key for {head.method} {head.path} from {head.peer}.")

    with running_web_server(tmp_path, hooks=Hooks(refuse)) as server:
        with server.connect(post(19 * MIB)) as connection:
            received = read_to_end(connection)
            assert_refused(received, 401)
            assert b"No key for POST /echo from 127.0.0.1." in received
        with server.connect(post(5, more="Authorization: Bearer good\r\n") + b"hello") as connection:
            assert response_of(connection)[0] == 200
        assert [request[2] for request in server.app.requests] == [b"hello"]


def test_head_that_trickles_in_is_given_up(tmp_path: Path) -> None:
    with running_web_server(tmp_path, header_seconds=1.0) as server, server.connect() as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in get("/" + "x" * 1000):
                connection.sendall(bytes([byte]))
                if is_readable(connection):
                    break
        assert time.monotonic() - began < 5
        assert_refused(read_to_end(connection), 408)


def is_readable(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        connection.settimeout(10)


def test_connection_on_which_nothing_comes_is_closed(tmp_path: Path) -> None:
    with running_web_server(tmp_path, header_seconds=1.0) as server, server.connect() as connection:
        assert read_to_end(connection) == b""


def test_idle_connection_is_closed_and_one_in_use_is_not(tmp_path: Path) -> None:
    request = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
    with (
        running_web_server(tmp_path, keep_alive_seconds=4.0, header_seconds=1.0) as server,
        server.connect(request) as used,
        server.connect(request) as idle,
    ):
        assert response_of(used)[0] == response_of(idle)[0] == 200

        def is_idle_closed() -> bool:
            time.sleep(0.2)
            server.ask()  # the server looks at its deadlines when something happens: also while ``used`` is silent
            time.sleep(0.1)
            closed = is_closed(idle)
            used.sendall(request)
            assert response_of(used)[0] == 200
            return closed

        wait_for(is_idle_closed, "the end of the idle connection")


@pytest.mark.slow
def test_body_that_stalls_after_a_quick_beginning_is_refused(tmp_path: Path) -> None:
    with running_web_server(tmp_path) as server, server.connect(post(8 * MIB) + b"x" * (7 * MIB)) as connection:
        wait_for(lambda: server.connections.held.total == 7 * MIB, "the body so far")
        connection.settimeout(30)
        assert_refused(read_to_end(connection), 408)
        wait_for(lambda: server.connections.held.total == 0, "nothing held")


def test_bodies_that_stall_never_hold_more_than_the_bound(tmp_path: Path) -> None:
    """Eight bodies of 19 MB held 152 MB."""
    with (
        running_web_server(tmp_path, max_held_bytes=64 * MIB) as server,
        opened(server, 8, post(20 * MIB)) as connections,
    ):
        for connection in connections:
            with contextlib.suppress(ConnectionError):  # refused meanwhile
                connection.sendall(b"x" * (19 * MIB))
            assert server.connections.held.total <= 65 * MIB
        wait_for(lambda: server.connections.count(Phase.BODY) <= 3, "the others refused")
        with server.connect(post(10 * MIB) + b"y" * (10 * MIB)) as honest:
            assert response_of(honest)[0] == 200
        assert server.connections.held.total <= 64 * MIB


def test_client_that_reads_nothing_holds_little_and_is_left(tmp_path: Path) -> None:
    with running_web_server(tmp_path, send_seconds=1.0) as server, server.connect(get("/flood")):
        wait_for(lambda: server.app.streams == 1, "the stream")
        wait_for(lambda: server.app.streams == 0, "its end")
        # What the system buffers for the socket, and a mebibyte of ours.
        assert server.app.flood_chunks * 65536 < 24 * MIB


def test_clients_that_read_nothing_hold_little_together(tmp_path: Path) -> None:
    with (
        running_web_server(tmp_path, api_threads=10, max_held_bytes=MIB, max_request_bytes=MIB) as server,
        opened(server, 10, get("/flood")),
    ):
        wait_for(lambda: server.app.streams == 10, "the streams")
        wait_for(lambda: server.app.streams <= 1, "the end of those beyond the bound")


def test_reserved_paths_are_answered_while_every_thread_streams(tmp_path: Path) -> None:
    stream = post(0, path="/stream")
    reserved = ("/health/live", "/health", "/health/ready", "/metrics", "/v1/keys", "/v1/keys/abc", "/v1/models", "/")
    with running_web_server(tmp_path, max_queued_requests=10) as server, opened(server, 4, stream):
        wait_for(lambda: server.app.streams == 4, "streams on all threads")
        with opened(server, 10, stream):
            for path in reserved:
                assert server.ask(path, 2)[0] == 200
            wait_for(lambda: server.connections.count(Phase.SERVED) == 14, "ten that wait")
            with server.connect(stream) as connection:
                received = read_to_end(connection)
            assert_refused(received, 503)
            assert b"\r\nRetry-After: 5\r\n" in received
            assert b'"code":"overloaded"' in received
            with server.connect(b"bad\r\n") as connection:
                assert_refused(read_to_end(connection), 400)


def test_half_open_connections_make_room_for_others(tmp_path: Path) -> None:
    with (
        running_web_server(tmp_path, max_connections=50) as server,
        opened(server, 20, get("/stream")),
        opened(server, 100, b"GET /x HTTP/1.1\r\nHost: t") as half_open,
    ):
        for _ in range(20):
            assert server.ask("/health/live", 2)[0] == 200
        assert len(server.connections) <= 50
        assert is_closed(half_open[0])
        assert not is_closed(half_open[-1])
        server.app.released.set()


def test_connections_that_make_room_are_told_of_with_their_address(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    hooks = Hooks(on_closed=lambda address, count: told.append((address, count)))
    with running_web_server(tmp_path, max_connections=20, hooks=hooks) as server, opened(server, 60, b"GET /"):
        wait_for(lambda: told, "a report")
    assert told[0][0] == "127.0.0.1"
    assert told[0][1] >= 16
    assert len(told) == 1


def test_health_is_answered_beyond_the_bound_of_connections_that_are_all_served(tmp_path: Path) -> None:
    with running_web_server(tmp_path, max_connections=16) as server, opened(server, 16, get("/stream")):
        wait_for(lambda: server.connections.count(Phase.SERVED) == 16, "connections that are all served")
        assert server.ask("/health/live", 2)[0] == 200
        with server.connect(get("/v1/models")) as connection:
            assert_refused(read_to_end(connection), 503)
        with opened(server, 200):
            assert server.ask("/health/live", 2)[0] == 200
        wait_for(lambda: len(server.connections) <= 16, "the others gone")


def test_address_beyond_loopback_has_its_own_bound(tmp_path: Path) -> None:
    with (
        running_web_server(
            tmp_path, max_connections_per_address=5, hooks=Hooks(is_unbounded=lambda _address: False)
        ) as server,
        opened(server, 5, get("/stream")),
    ):
        wait_for(lambda: server.connections.count(Phase.SERVED) == 5, "as many as allowed")
        with server.connect(get("/v1/models")) as connection:
            received = read_to_end(connection)
        assert_refused(received, 429)
        assert b'"code":"too_many_connections"' in received
        assert server.ask("/health/live")[0] == 200


def test_loopback_has_no_bound_of_its_own(tmp_path: Path) -> None:
    with running_web_server(tmp_path, max_connections_per_address=5) as server, opened(server, 30):
        assert server.ask("/v1/models")[0] == 200


@given(request_bytes=requests_like_http())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_get_an_answer_or_a_closed_connection(server: TestServer, request_bytes: bytes) -> None:
    with server.connect(request_bytes, 5) as connection:
        connection.shutdown(socket.SHUT_WR)
        received = read_to_end(connection)
    assert received == b"" or received.startswith(b"HTTP/1.")


def _leave_at_once(connection: socket.socket) -> None:
    """Close with a reset, as a client does that is killed."""
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    )
    connection.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /x HT",
        post(100_000) + b"x" * 50_000,
        get("/x"),
        get("/stream"),
        get("/flood"),
        b"bad\r\n",
        post(99 * MIB) + b"x" * 50_000,
        b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n" * 50,
    ],
    ids=["nothing", "half a head", "half a body", "request", "stream", "flood", "malformed", "too large", "pipelined"],
)
def test_clients_that_leave_leave_nothing_behind(tmp_path: Path, sent: bytes) -> None:
    """CVE-2022-31015 and CVE-2024-49769: their connections ended the loop, or kept it busy for ever."""
    with running_web_server(tmp_path) as server:
        for number in range(40):
            connection = server.connect(sent)
            time.sleep(0.001 * (number % 4))
            _leave_at_once(connection)
        server.app.released.set()
        wait_for(lambda: len(server.connections) == 0, "no connection")
        wait_for(lambda: server.app.streams == 0, "no stream")
        wait_for(lambda: server.connections.held.total == 0, "nothing held")
        assert server.ask("/x")[0] == 200
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.25, "the loop is busy with connections that are gone"


def test_nothing_is_read_as_a_request_after_a_malformed_one(server: TestServer) -> None:
    """CVE-2024-49768: what came in another packet, while the refusal was written, was still served."""
    before = len(server.app.requests)
    for _ in range(50):
        with server.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1, 1\r\n\r\n")
            for _ in range(20):
                connection.sendall(get("/smuggled"))
            assert_refused(read_to_end(connection), 400)
    assert server.app.requests[before:] == []
