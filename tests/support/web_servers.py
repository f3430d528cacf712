"""Our web server in the test's own process, before a small application, and requests to it over bare sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import orjson

from mistral_api.event_loop.waiting import Signal, in_task
from mistral_api.event_loop.wsgi import ON_DISCONNECT, RUNS_AS_TASK, WHILE_WAITING
from mistral_api.serving.connection_shares import ConnectionShares
from mistral_api.serving.connections import Connections
from mistral_api.serving.hooks import Hooks
from mistral_api.serving.web_server import WebServer, bind_listener
from mistral_api.settings import Settings
from tests.support.error_shape import assert_error_shape


@dataclass
class EchoApp:
    """A WSGI application that answers with what it was sent, and counts. ``/stream`` lasts until ``released``."""

    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    # For ``/task``: set to have all of them go on; and when a client has left.
    go_on: Signal = field(default_factory=Signal)
    left: Signal = field(default_factory=Signal)
    streams: int = 0
    # Whether each of them is a task of the event loop, or waits on a thread.
    in_tasks: list[bool] = field(default_factory=list)
    flood_chunks: int = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        body = environ["wsgi.input"].read()
        self.requests.append((method, path, body))
        if path.startswith("/task"):
            environ[RUNS_AS_TASK] = True
            environ[ON_DISCONNECT](self.left.set)
            if path != "/task/whole":
                environ[WHILE_WAITING] = partial(_say_that_it_waits, start_response)
            return self._task(path, start_response)
        if path == "/stream":
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            return self._stream()
        if path == "/flood":
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            return self._flood()
        content = orjson.dumps({"method": method, "path": path, "query": environ["QUERY_STRING"], "length": len(body)})
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
        return [content]

    def _task(self, path: str, start_response: Callable[..., Any]) -> Iterator[bytes]:
        """A body that waits as a task may: it begins its response when it goes on, and ends as its path says."""
        self.in_tasks.append(in_task())
        self.streams += 1
        try:
            assert self.go_on.wait(60)
            if path == "/task/failing":
                raise ValueError("the application fails")
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            yield b"data: begun\n\n"
            while path == "/task/flood" and not self.released.is_set():
                self.flood_chunks += 1
                yield bytes(65536)
            yield b"data: [DONE]\n\n"
        finally:
            self.streams -= 1

    def _stream(self) -> Iterator[bytes]:
        self.streams += 1
        try:
            yield b"data: begun\n\n"
            self.released.wait(60)
            yield b"data: [DONE]\n\n"
        finally:
            self.streams -= 1

    def _flood(self) -> Iterator[bytes]:
        self.streams += 1
        try:
            while not self.released.is_set():
                self.flood_chunks += 1
                yield b"x" * 65536
        finally:
            self.streams -= 1


def _say_that_it_waits(start_response: Callable[..., Any]) -> bytes:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return b": waiting\n\n"


@dataclass
class TestServer:
    """A running web server and its application."""

    __test__ = False
    web_server: WebServer
    app: EchoApp
    port: int

    @property
    def connections(self) -> Connections:
        """The server's own view of its connections."""
        return self.web_server.connections

    def connect(self, data: bytes = b"", seconds: float = 10.0) -> socket.socket:
        """Open a connection and send these bytes."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        connection.sendall(data)
        return connection

    def ask(self, path: str = "/health/live", seconds: float = 10.0) -> tuple[int, float]:
        """Send a GET request on a connection of its own. Return the status and the seconds it took."""
        began = time.monotonic()
        with self.connect(get(path), seconds) as connection:
            return response_of(connection)[0], time.monotonic() - began


@contextlib.contextmanager
def running_web_server(
    folder: Path,
    *,
    hooks: Hooks | None = None,
    shares: ConnectionShares | None = None,
    **settings: Any,
) -> Iterator[TestServer]:
    """Run it with these settings."""
    listener = bind_listener("127.0.0.1", 0)
    app = EchoApp()
    made = Settings(data_dir=folder, **({"api_threads": 4} | settings))
    server = WebServer(app, listener, made, hooks, shares)
    server.start()
    try:
        yield TestServer(server, app, listener.getsockname()[1])
    finally:
        app.released.set()
        app.go_on.set()
        server.close()


def get(path: str) -> bytes:
    """Return a GET request that closes its connection."""
    return f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()


def post(length: int, *, path: str = "/echo", more: str = "") -> bytes:
    """Return the head of a POST request whose body has so many bytes."""
    return f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def response_of(connection: socket.socket) -> tuple[int, bytes]:
    """Read one response to its end. Return its status and body."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes the connection, however it does."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            received += data
    return received


def assert_refused(received: bytes, status: int) -> None:
    """Check that one error in our shape was received, and that the connection was then closed."""
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].split(b" ")[1] == str(status).encode(), received[:300]
    assert b"Connection: close" in lines
    assert b"X-Error-Source: api" in lines
    assert_error_shape(orjson.loads(body))
