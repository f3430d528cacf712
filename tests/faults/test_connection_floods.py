"""Health answers, from the same address, under half-open connections and more streams than there are threads."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from tests.support.marking_engine import marking_engine
from tests.support.processes import Server, running_server, temporary_data_dir
from tests.support.raw_requests import send_request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="select() takes 512 sockets there")

HALF_OPEN, STREAMS = 1050, 200
#: Between two chunks of a stream. A stream has more of them than any test waits for.
CHUNK_SECONDS, CHUNKS = 0.25, 4000
#: Within which an answer has to come, in seconds: a probe of a load balancer waits as long. A server whose loop or
#: threads are taken does not answer at all; one that shares two cores with the flood and other tests is merely slower.
ANSWER_SECONDS = 5.0
CHAT = {"messages": [{"role": "user", "content": "Go on."}], "stream": True, "max_tokens": CHUNKS}


@pytest.fixture(scope="module")
def streams() -> Iterator[tuple[Server, list[socket.socket]]]:
    """A server that 200 clients stream from, and their connections."""
    with (
        marking_engine(pace=1 / CHUNK_SECONDS) as engine,
        temporary_data_dir() as data_dir,
        running_server(data_dir, MODEL_SERVER_URL=engine.url, SHUTDOWN_SECONDS="0") as server,
        contextlib.ExitStack() as stack,
    ):
        opened = [stack.enter_context(send_request(server, "/v1/chat/completions", CHAT)) for _ in range(STREAMS)]
        assert opened[0].recv(65536)
        yield server, opened


@pytest.fixture
def flooded(streams: tuple[Server, list[socket.socket]]) -> Iterator[Server]:
    """The same server under 1,050 connections that have sent half a head."""
    with contextlib.ExitStack() as stack:
        for _ in range(HALF_OPEN):
            _open_half(streams[0], stack)
        yield streams[0]


def _open_half(server: Server, stack: contextlib.ExitStack) -> None:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.api_port), timeout=30))
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: te")


def _longest(server: Server, path: str, count: int) -> float:
    """Ask so many times, each on a new connection. Return the longest time that an answer took, in seconds."""
    longest = 0.0
    for _ in range(count):
        began = time.monotonic()
        assert requests.get(server.url + path, timeout=10).status_code == 200
        longest = max(longest, time.monotonic() - began)
    return longest


def test_health_answers_under_half_open_connections_and_streams(flooded: Server) -> None:
    for path in ("/health/live", "/health", "/health/ready"):
        assert _longest(flooded, path, 50) < ANSWER_SECONDS, path


def test_health_answers_while_half_open_connections_keep_coming(flooded: Server) -> None:
    stop = threading.Event()

    def flood() -> None:
        with contextlib.ExitStack() as stack:
            while not stop.is_set():
                _open_half(flooded, stack)

    attacker = threading.Thread(target=flood)
    attacker.start()
    try:
        assert _longest(flooded, "/health/live", 100) < ANSWER_SECONDS
    finally:
        stop.set()
        attacker.join()


@pytest.mark.usefixtures("flooded")
@pytest.mark.slow
def test_stream_goes_on_under_half_open_connections(streams: tuple[Server, list[socket.socket]]) -> None:
    stream = streams[1][0]
    last, longest = None, 0.0
    for _ in range(40):
        assert stream.recv(65536)
        now = time.monotonic()
        longest, last = max(longest, now - (last or now)), now
    assert longest < ANSWER_SECONDS + CHUNK_SECONDS
