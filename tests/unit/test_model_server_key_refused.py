"""A model server that refuses our key: not our client's fault, and with a server of ours not for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mistral_api.control.server_key import make_server_key
from mistral_api.errors import ModelUnavailable, ModelUnusable
from mistral_api.settings import Settings
from mistral_api.upstream.cancellation import UpstreamCall
from tests.support.model_server_clients import model_server_client


class _Handler(BaseHTTPRequestHandler):
    """Answers with 401 to another key than the one of the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        keys: list[str] = self.server.keys  # type: ignore[attr-defined]
        self.server.asked.set()  # type: ignore[attr-defined]
        allowed = self.headers.get("Authorization") in [f"Bearer {key}" for key in keys]
        body = b"{}" if allowed else b'{"error": {"code": 401, "message": "Invalid API Key"}}'
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def keyed_server() -> Iterator[Any]:
    """A server with the attributes ``keys``, those that it takes, and ``asked``, an event."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.keys, server.asked = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


def test_request_with_the_key_of_a_former_start_is_sent_again_with_the_new_one(
    keyed_server: Any, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, model_server_port=keyed_server.server_port, model_wait_seconds=10)
    make_server_key(settings)

    def restart() -> None:
        keyed_server.asked.wait(10)
        keyed_server.keys.append(make_server_key(settings))

    restarting = threading.Thread(target=restart)
    restarting.start()
    with model_server_client(settings) as client:
        assert client.query("/tokenize", {}, UpstreamCall()) == {}
    restarting.join(timeout=10)


def test_key_that_a_supervised_server_never_takes_is_503(keyed_server: Any, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, model_server_port=keyed_server.server_port, model_wait_seconds=0.2)
    with model_server_client(settings) as client, pytest.raises(ModelUnavailable, match="does not take the key"):
        client.query("/tokenize", {}, UpstreamCall())


def test_external_server_gets_the_key_of_the_setting_and_its_refusal_is_no_401(keyed_server: Any) -> None:
    keyed_server.keys.append("right")
    url = f"http://127.0.0.1:{keyed_server.server_port}"
    with model_server_client(Settings(model_server_url=url, model_server_api_key="right")) as client:
        assert client.query("/tokenize", {}, UpstreamCall()) == {}
    with (
        model_server_client(Settings(model_server_url=url, model_server_api_key="wrong")) as client,
        pytest.raises(ModelUnusable, match="MODEL_SERVER_API_KEY") as refused,
    ):
        client.query("/tokenize", {}, UpstreamCall())
    assert refused.value.status == 503
    assert "wrong" not in str(refused.value)
