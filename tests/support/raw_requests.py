"""Requests over a bare socket, so that a test can close the connection at any point."""

from __future__ import annotations

import socket
from typing import Any

import orjson

from tests.support.processes import Server


def send_request(server: Server, path: str, body: Any, *headers: str) -> socket.socket:
    """Send a POST request with these header lines, and return the connection without reading from it."""
    content = orjson.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {len(content)}", "", ""]
    connection = socket.create_connection(("127.0.0.1", server.api_port), timeout=30)
    connection.sendall("\r\n".join(lines).encode() + content)
    return connection
