"""Host names and addresses as programs on this machine write and reach them."""

from __future__ import annotations

import socket
import sys

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - replaced, not bound


def reachable_host(host: str) -> str:
    """Where to connect to reach what listens on ``host``: loopback where it listens everywhere.

    Connecting to the address "everywhere" itself works on Linux and fails on Windows.
    """
    return _EVERYWHERE.get(host, host)


def url_of(host: str, port: int) -> str:
    """The base URL at which a server that listens there is reached; IPv6 in brackets (RFC 3986, 3.2.2)."""
    reached = reachable_host(host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def claim_address(listener: socket.socket) -> None:
    """Before ``bind``: on POSIX a port that is merely winding down may be taken; on Windows the same flag would
    share one that is in use."""
    if sys.platform == "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
