"""How the model server is reached: the URL that the operator gives, credentials, TLS, and nothing on the way."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import certifi
import pytest

from mistral_api.errors import ModelServerError, ModelUnusable
from mistral_api.upstream.cancellation import UpstreamCall
from tests.support.certificates import make_certificate
from tests.support.model_server_clients import client_of

ANSWER = {"tokens": [1, 2]}


class _Recorder(BaseHTTPRequestHandler):
    """Answers every request, and keeps its path, headers and body."""

    protocol_version = "HTTP/1.1"
    server: _Engine

    def do_POST(self) -> None:
        """Answer, or lead elsewhere."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, self.headers, body))
        content = json.dumps(ANSWER).encode()
        self.send_response(302 if "/moved" in self.path else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST  # noqa: N815 - the name that the standard library calls

    def log_message(self, *_: object) -> None:
        """Write no log."""


class _Engine(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Recorder)
        self.seen: list[tuple[str, Message, bytes]] = []
        self.connections = 0

    def get_request(self) -> tuple[object, object]:  # type: ignore[override]
        """Count the connections."""
        found = super().get_request()
        self.connections += 1
        return found


@contextlib.contextmanager
def _running(engine: _Engine) -> Iterator[_Engine]:
    thread = threading.Thread(target=engine.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield engine
    finally:
        engine.shutdown()
        engine.server_close()
        thread.join()


@pytest.fixture
def engine() -> Iterator[_Engine]:
    """A model server that keeps what it is asked."""
    with _running(_Engine()) as running:
        yield running


def _port(engine: _Engine) -> int:
    return int(engine.server_address[1])


def test_path_of_the_url_comes_before_every_path(engine: _Engine) -> None:
    with client_of(f"http://127.0.0.1:{_port(engine)}/engines/mistral") as client:
        assert client.query("/tokenize", {"content": "x"}, UpstreamCall()) == ANSWER
        assert client.get("/v1/models") == ANSWER
    assert [path for path, _, _ in engine.seen] == ["/engines/mistral/tokenize", "/engines/mistral/v1/models"]
    assert json.loads(engine.seen[0][2]) == {"content": "x"}
    assert engine.seen[0][1].get_all("Content-Type") == ["application/json"]


def test_connection_is_used_again(engine: _Engine) -> None:
    with client_of(f"http://127.0.0.1:{_port(engine)}") as client:
        for _ in range(5):
            assert client.query("/tokenize", {}, UpstreamCall()) == ANSWER
            assert client.get("/health") == ANSWER
    assert engine.connections == 1


def test_key_is_sent_and_a_password_in_the_url_comes_before_it(engine: _Engine) -> None:
    for credentials in ("", "Ann:p%40ss@", "Ann@", "%C3%84nn:%E2%82%AC%3A@"):
        with client_of(f"http://{credentials}127.0.0.1:{_port(engine)}", model_server_api_key="the-key") as client:
            client.query("/tokenize", {}, UpstreamCall())
    basic = [f"Basic {base64.b64encode(each.encode()).decode()}" for each in ("Ann:p@ss", "Ann:", "Änn:€:")]
    sent = [headers.get_all("Authorization") for _, headers, _ in engine.seen]
    assert sent == [[each] for each in ["Bearer the-key", *basic]]


def test_proxies_and_credentials_of_the_environment_are_ignored(
    engine: _Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login Ann password secret\n")
    for name, value in {
        "HTTP_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
        "NETRC": str(netrc),
    }.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    with client_of(f"http://127.0.0.1:{_port(engine)}") as client:
        assert client.query("/tokenize", {}, UpstreamCall()) == ANSWER
    assert "authorization" not in engine.seen[0][1]


def test_redirect_is_not_followed(engine: _Engine) -> None:
    with client_of(f"http://127.0.0.1:{_port(engine)}") as client, pytest.raises(ModelServerError):
        client.get("/moved")
    assert [path for path, _, _ in engine.seen] == ["/moved"]


def test_certificate_must_be_trusted_and_for_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, context = make_certificate(tmp_path, "localhost")
    secured = _Engine()
    secured.socket = context.wrap_socket(secured.socket, server_side=True)
    with _running(secured):
        with client_of(f"https://localhost:{_port(secured)}") as client, pytest.raises(ModelUnusable):
            client.get("/health")
        monkeypatch.setattr(certifi, "where", lambda: str(path))
        with client_of(f"https://127.0.0.1:{_port(secured)}") as client, pytest.raises(ModelUnusable):
            client.get("/health")
        assert secured.seen == []
        with client_of(f"https://localhost:{_port(secured)}") as client:
            assert client.get("/health") == ANSWER
            assert client.query("/tokenize", {}, UpstreamCall()) == ANSWER
