"""A model server that closes an idle connection still counts as running."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from mistral_api.settings import Settings
from mistral_api.upstream.cancellation import DisconnectWatcher
from mistral_api.upstream.client import ModelServerClient

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """A server that serves one request per connection, does not announce it, and hangs up on the second."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=_serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()
        if sys.platform != "win32":  # there it fails, and closing the listener is enough
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # closed: the test is over
            return
        with connection, contextlib.suppress(TimeoutError):
            connection.settimeout(0.5)
            if connection.recv(4096):
                connection.sendall(ANSWER)
                connection.recv(4096)


def test_probe_retries_on_a_new_connection_after_the_server_closed_an_idle_one(address: tuple[str, int]) -> None:
    settings = Settings(model_server_url=f"http://127.0.0.1:{address[1]}")
    server = ModelServerClient(settings, lambda: None, lambda: False, DisconnectWatcher())
    assert [server.probe() for _ in range(4)] == ["ready"] * 4
    server.close()
