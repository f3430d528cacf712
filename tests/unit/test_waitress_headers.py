"""A proxy on this machine is seen behind a plain waitress too, which hides what it received from applications."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from waitress.server import create_server

from mistral_api.security.proxies import is_proxied
from mistral_api.security.request_head import head_from_environ


def _application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    head = head_from_environ(environ)
    content = f"{is_proxied(head)} {head.header('X_FORWARDED_FOR')}".encode()
    start_response("200 OK", [("Content-Length", str(len(content)))])
    return [content]


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a waitress with its own defaults."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = create_server(_application, sockets=[listener], threads=1, clear_untrusted_proxy_headers=True)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield listener.getsockname()[1]
    server.task_dispatcher.shutdown()
    server.trigger.pull_trigger(server.close)
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, b"False None"),
        ({"X-Forwarded-For": "203.0.113.7"}, b"True 203.0.113.7"),
        ({"Forwarded": "for=203.0.113.7"}, b"True None"),
        ({"X-Forwarded-Proto": "https"}, b"True None"),
    ],
)
def test_headers_of_a_proxy_are_seen(port: int, headers: dict[str, str], answer: bytes) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers=headers)
    assert connection.getresponse().read() == answer
    connection.close()
