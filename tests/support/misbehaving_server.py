"""A model server that misbehaves on demand, over a real socket in the real protocol.

The model's name chooses the behaviour; ``/health`` and ``/v1/models`` always succeed.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.processes import Server, running_server, temporary_data_dir

MODEL_NAMES = (
    "fine",
    "silent",
    "silent-stream",
    "cut",
    "cut-stream",
    "garbage",
    "breaks-500",
    "error-event",
    "loading",
    "no-done",
    "dying",
    "hangs-up",
    "calls-tools",
    "no-such-url",
    "progress-error",
    "progress-done",
    "silent-progress",
    "odd-usage",
    "late-end",
)
ROLE = {"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}
PROGRESS = {"id": "x", "model": "fake", "choices": [ROLE], "prompt_progress": {"total": 9, "cache": 0, "processed": 4}}
ODD_USAGE = {
    "id": "x",
    "choices": [],
    "usage": {"prompt_tokens": "x", "completion_tokens": None},
    "timings": {"a": "b"},
}
COMPUTE_ERROR = {"error": {"code": 500, "message": "Compute error.", "type": "server_error"}}
NOT_FOUND = {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}
DONE = b"data: [DONE]\n\n"
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _chunk(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return _event({"id": "x", "model": "fake", "choices": [choice]})


def _calls_tools() -> bytes:
    """Return the events of two tool calls, in pieces as llama.cpp streams them."""
    pieces = [
        {"index": 0, "id": "call_a", "type": "function", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"x": 1'}},
        {"index": 0, "function": {"arguments": "}"}},
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": "stop", "arguments": "{}"}},
    ]
    deltas = [({"content": "Well."}, None), *(({"tool_calls": [piece]}, None) for piece in pieces), ({}, "tool_calls")]
    usage = {"prompt_tokens": 7, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 3}}
    chunks: list[dict[str, Any]] = [
        {"id": "x", "model": "fake", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in deltas
    ]
    return b"".join(map(_event, [*chunks, {"id": "x", "choices": [], "usage": usage}]))


class MisbehavingHandler(BaseHTTPRequestHandler):
    """The handler of one connection; ``released`` ends its waits when the test is over."""

    protocol_version = "HTTP/1.1"
    released: threading.Event
    hang_ups: list[str]
    bodies: list[Any]
    heads: list[dict[str, str]]

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing on stderr."""

    def do_GET(self) -> None:
        """Serve health and models, and nothing else of llama.cpp's."""
        if self.path == "/props":
            self._whole(404, NOT_FOUND)
            return
        models = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in MODEL_NAMES]
        self._whole(200, {"object": "list", "data": models} if self.path == "/v1/models" else {"status": "ok"})

    def do_POST(self) -> None:
        """Misbehave as the model's name says."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        self.heads.append({name.lower(): value for name, value in self.headers.items()})
        if "model" not in body:
            self._whole(404, NOT_FOUND)
            return
        one = _event({"index": 0, "content": "one", "stop": False}) if self.path == "/completion" else _chunk("one")
        actions: dict[str, Callable[[], None]] = {
            "fine": self._fine,
            "silent": self._wait,
            "silent-stream": lambda: self._stream(one, self._wait),
            "cut": self._cut_in_body,
            "cut-stream": lambda: self._stream(one, self._cut),
            "no-done": lambda: self._stream(one, lambda: self._send(b"")),
            "garbage": lambda: self._raw(200, b"\x00\xffnot json"),
            "breaks-500": lambda: self._whole(500, COMPUTE_ERROR),
            "loading": lambda: self._whole(503, LOADING),
            "dying": self._hang_up if self.hang_ups.count("dying") < 3 else self._fine,
            "hangs-up": self._hang_up,
            "no-such-url": lambda: self._whole(404, {"detail": "Not Found"}),
            "error-event": lambda: self._stream(one + _event(COMPUTE_ERROR), lambda: self._send(b"")),
            "progress-error": lambda: self._stream(_event(PROGRESS) + _event(COMPUTE_ERROR), lambda: self._send(b"")),
            "progress-done": lambda: self._stream(_event(PROGRESS) + DONE, lambda: self._send(b"")),
            "silent-progress": lambda: self._stream(_event(PROGRESS), self._wait),
            "odd-usage": lambda: self._stream(one + _event(ODD_USAGE) + DONE, lambda: self._send(b"")),
            "late-end": lambda: self._stream(one + DONE, self._end_late),
            "calls-tools": lambda: self._stream(_calls_tools() + DONE, lambda: self._send(b"")),
        }
        self.model, self.streams = body["model"], body.get("stream", False)
        actions[self.model]()

    def _hang_up(self) -> None:
        self.hang_ups.append(self.model)
        self.close_connection = True

    def _fine(self) -> None:
        if self.streams:
            self._stream(_chunk("fine"), lambda: self._send(DONE))
            self._send(b"")
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self._whole(200, {"id": "x", "model": "fake", "choices": [choice], "usage": usage})

    def _whole(self, status: int, body: Any) -> None:
        self._raw(status, json.dumps(body).encode())

    def _raw(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, data: bytes, end: Callable[[], None]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._send(data)
        end()

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _wait(self) -> None:
        self.released.wait(timeout=60)
        self.close_connection = True

    def _end_late(self) -> None:
        self.released.wait(timeout=0.5)
        self._send(b"")

    def _cut(self) -> None:
        self.close_connection = True

    def _cut_in_body(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
        self.close_connection = True


@contextlib.contextmanager
def misbehaving_server(
    bodies: list[Any] | None = None, heads: list[dict[str, str]] | None = None, port: int = 0
) -> Iterator[str]:
    """Run it, on any free port for 0, and yield its base URL. ``bodies`` and ``heads`` get what it is sent."""
    released = threading.Event()
    handler = type(
        "Handler",
        (MisbehavingHandler,),
        {
            "released": released,
            "hang_ups": [],
            "bodies": [] if bodies is None else bodies,
            "heads": [] if heads is None else heads,
        },
    )
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


@contextlib.contextmanager
def misbehaving_stack() -> Iterator[Server]:
    """Run the stack with it as an external engine and with short deadlines, in which a busy machine still answers."""
    settings = {"MODEL_READ_SECONDS": "3", "MODEL_WAIT_SECONDS": "3", "SHUTDOWN_SECONDS": "1"}
    with (
        misbehaving_server() as url,
        temporary_data_dir() as data_dir,
        running_server(data_dir, MODEL_SERVER_URL=url, **settings) as running,
    ):
        yield running
