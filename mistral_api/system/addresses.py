"""Host names, addresses and URLs of the servers on this machine."""

from __future__ import annotations

import ipaddress
import socket
import sys
from functools import lru_cache
from urllib.parse import urlsplit

_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - replaced, not bound


@lru_cache(maxsize=4096)
def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def reachable_host(host: str) -> str:
    """Return the host to connect to for a server that listens on ``host``: loopback where it listens on all addresses.

    A connection to the address "all" itself works on Linux and fails on Windows.
    """
    return _LOOPBACK_OF.get(host, host)


def url_of(host: str, port: int) -> str:
    """Return the base URL of a server that listens on ``host``; IPv6 stands in brackets (RFC 3986, 3.2.2)."""
    reachable = reachable_host(host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def without_credentials(url: str) -> str:
    """Return a URL as a log may show it: without user and password, and without its query, which may hold a key."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def connect_unix(path: str, seconds: float | None) -> socket.socket:
    """Return a socket that is connected to a Unix socket. ``seconds``: the timeout from then on. Raises OSError."""
    if sys.platform == "win32":
        raise OSError("Windows has no Unix sockets that Python can use")
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(seconds)
        connected.connect(path)
    except OSError:
        connected.close()
        raise
    return connected


def claim_address(listener: socket.socket) -> None:
    """Set the option that lets ``bind`` take a port whose former connections are still closing, but none in use.

    SO_REUSEADDR means that on POSIX; on Windows it would share a port that is in use.
    """
    if sys.platform == "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
