"""The application under gunicorn and granian, two processes each, before an engine that misbehaves."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.metric_samples import scrape, value
from tests.support.misbehaving_server import misbehaving_server
from tests.support.processes import ROOT, clean_environment, free_port, is_live, temporary_data_dir, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="these servers are for Linux and macOS"),
]

KEY = "the-secret-of-the-operator"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
CHAT = "/v1/chat/completions"
STOP_SECONDS = 30


def _gunicorn(port: int, *options: str) -> list[str]:
    return ["gunicorn", "--config", "deploy/gunicorn.conf.py", "--bind", f"127.0.0.1:{port}", *options, "wsgi:app"]


def _granian(port: int) -> list[str]:
    options = ["--interface=wsgi", "--workers=2", "--blocking-threads=64", "--workers-kill-timeout=15"]
    return ["granian", *options, f"--port={port}", "wsgi:app"]


COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "gunicorn": _gunicorn,
    "gunicorn that forks a loaded application": lambda port: _gunicorn(port, "--preload"),
    "granian": _granian,
}


@dataclass
class OtherServer:
    """A running server: its name, its process and its port, the folder of its data, and how many chats it answered."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    data_dir: Path
    succeeded: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def chat(self, model: str, **fields: Any) -> requests.Response:
        """Ask a model."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
        answer = requests.post(self.url + CHAT, json=body, headers=AUTHORIZED, timeout=30)
        self.succeeded += answer.status_code == 200
        return answer

    def answered(self, status: str) -> float:
        """Return how many chats have ended with a status, in all its processes."""
        samples = scrape(self.url, **AUTHORIZED)
        return value(samples, "requests_total", route=CHAT, method="POST", status=status) or 0.0


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest) -> Iterator[OtherServer]:
    """Two processes of a server, before a database that nobody serves."""
    name, port = str(request.param), free_port()
    program, *options = COMMANDS[name](port)
    with misbehaving_server() as engine, temporary_data_dir() as data_dir:
        data_dir.mkdir(mode=0o711)
        environment = clean_environment(
            DATA_DIR=str(data_dir), MODEL_SERVER_URL=engine, ADMIN_API_KEY=KEY,
            DATABASE_URL="postgresql://nobody@127.0.0.1:9/none",
        )  # fmt: skip
        command = [str(Path(sys.executable).parent / program), *options]
        log = data_dir / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(partial(is_live, f"http://127.0.0.1:{port}"), "the API")
            yield OtherServer(name, process, port, data_dir)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=STOP_SECONDS)


def test_whole_answers_streams_and_refusals(server: OtherServer) -> None:
    whole = server.chat("fine")
    assert whole.json()["choices"][0]["message"]["content"]
    assert whole.headers["X-Session-Id"].startswith("sess_")
    stream = server.chat("fine", stream=True)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert stream.content.endswith(b"data: [DONE]\n\n")
    refusal = server.chat("fine", max_tokens="many")
    assert refusal.status_code == 400
    assert_error_shape(refusal.json(), param="max_tokens")
    assert server.chat("breaks-500").status_code >= 500
    assert server.chat("breaks-500", stream=True).status_code >= 500


@contextlib.contextmanager
def _left(server: OtherServer, model: str, *, stream: bool) -> Iterator[socket.socket]:
    """Send a request whose client leaves at the end of the block."""
    body = b'{"model":"%s","stream":%s,"messages":[{"role":"user","content":"x"}]}' % (
        model.encode(), b"true" if stream else b"false",
    )  # fmt: skip
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        yield connection


def test_client_that_leaves_ends_its_request(server: OtherServer) -> None:
    """gunicorn lets the application see its socket. granian notices it when the next chunk cannot be sent."""
    if server.name == "granian":
        pytest.skip("granian tells nobody before the next chunk")
    before = server.answered("499")
    with _left(server, "silent", stream=False), _left(server, "silent", stream=True):
        pass
    wait_for(lambda: server.answered("499") == before + 2, "the end of both requests")


def test_counts_of_both_processes_add_up_and_both_end_in_order(server: OtherServer) -> None:
    with ThreadPoolExecutor(8) as clients:
        assert {answer.status_code for answer in clients.map(server.chat, ["fine"] * 8)} == {200}
    wait_for(lambda: server.answered("200") == server.succeeded, "the sum of both")
    if server.name != "granian":
        with _left(server, "silent-stream", stream=True) as connection:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
    server.process.terminate()
    assert server.process.wait(timeout=STOP_SECONDS) == 0
    # Closed in order: a process that was killed leaves its lock's file.
    assert not list((server.data_dir / "journal" / "processes").glob("*.lock"))
