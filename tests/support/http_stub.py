"""A small HTTP server in threads of a test's own process, for whoever answers as the test says."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StubHandler(BaseHTTPRequestHandler):
    """The handler of one connection: what every such server does. A subclass answers by ``get`` and ``post``."""

    protocol_version = "HTTP/1.1"

    def get(self) -> None:
        """Answer a GET."""
        self.send_error(404)

    def post(self, body: Any) -> None:
        """Answer a POST with a JSON body."""
        self.send_error(404)

    def do_GET(self) -> None:
        """Answer a GET."""
        self.get()

    def do_HEAD(self) -> None:
        """Answer a HEAD as a GET; ``get`` leaves out the content."""
        self.get()

    def do_POST(self) -> None:
        """Answer a POST."""
        self.post(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing on stderr."""

    def send_whole(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a response."""
        self._begin(status, {**(headers or {}), "Content-Length": str(len(content))})
        self.wfile.write(content)

    def begin_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of a stream of events, whose pieces follow; the last one is empty."""
        head = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
        self._begin(200, head | dict(headers or {}))

    def send_piece(self, data: bytes) -> None:
        """Send a piece of a stream."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class _StubServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless it is that the client left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def http_stub(handler: type[BaseHTTPRequestHandler], **attributes: object) -> Iterator[str]:
    """Run a server until the end of the block, and give its URL. Its handlers have these ``attributes``."""
    server = _StubServer(("127.0.0.1", 0), type("Handler", (handler,), attributes))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
