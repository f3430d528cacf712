"""What one connection, and all of them, may cost: bounds from the settings, and those that nobody needs to change."""

from __future__ import annotations

from dataclasses import dataclass

from waitress import wasyncore

from mistral_api.settings import Settings
from mistral_api.system.open_files import allow_open_files

# Files beside those of connections: the journal, the database, logs, idle connections to the model server, spooled
# bodies.
OTHER_FILES = 600
# A client that waits for a generation has a connection to the model server too.
FILES_A_CLIENT = 2
# Where the system has no poll(), select() takes 512 sockets (Windows, CPython's FD_SETSIZE): those of clients, of their
# generations, the surplus, and idle ones.
SELECT_CONNECTIONS = 170


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The bounds in force. Times are in seconds, sizes in bytes; 0 connections an address means no bound."""

    connections: int
    address_connections: int
    queued_requests: int
    body_bytes: int
    held_bytes: int
    header_seconds: float
    body_rate: int
    keep_alive_seconds: float
    send_seconds: float
    # A request line with a long query, and the headers of a browser with many cookies, are far below these.
    request_line_bytes: int = 8 << 10
    header_bytes: int = 64 << 10
    header_count: int = 100
    # A body must bring `body_rate` in each window.
    body_window_seconds: float = 10.0
    # How long the rest of a refused request is read and dropped: closing at once would reset the connection, and the
    # client would lose the answer. The names and times are nginx's (lingering_timeout, lingering_time).
    linger_silence_seconds: float = 5.0
    linger_seconds: float = 30.0
    # Where more waits to be sent than `held_bytes`, clients that take nothing for so long are left.
    unread_seconds: float = 5.0
    # Connections beyond the bound: they reach /health and the keys, and are refused everything else.
    surplus: int = 64


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Return the bounds for these settings, on this system. Raises the process's limit of open files if need be."""
    files = allow_open_files(settings.max_connections * FILES_A_CLIENT + OTHER_FILES)
    most = settings.max_connections
    if files is not None:
        most = min(most, (files - OTHER_FILES) // FILES_A_CLIENT)
    if not hasattr(wasyncore.select, "poll"):
        most = min(most, SELECT_CONNECTIONS)
    return ConnectionLimits(
        connections=max(16, most),
        address_connections=settings.max_connections_per_address,
        queued_requests=settings.max_queued_requests,
        body_bytes=settings.max_request_bytes,
        held_bytes=max(settings.max_held_bytes, settings.max_request_bytes),
        header_seconds=settings.header_seconds,
        body_rate=settings.body_bytes_per_second,
        keep_alive_seconds=settings.keep_alive_seconds,
        send_seconds=settings.send_seconds,
    )
