"""The connection of the client of a request, as far as the web server lets the application see it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from mistral_api.event_loop import waiting

_WITHOUT_WAITING: int = getattr(socket, "MSG_DONTWAIT", 0)


def asks_whether_client_left(environ: Mapping[str, Any]) -> Callable[[], bool] | None:
    """Return what asks whether the client of a request has closed its connection; None where nobody can tell.

    waitress has a function for it where ``channel_request_lookahead`` is above 0, gunicorn the socket. Under granian
    only a stream notices it, when a chunk cannot be sent.
    """
    asks: Callable[[], bool] | None = environ.get("waitress.client_disconnected")
    connection = environ.get("gunicorn.socket")
    if asks is None and isinstance(connection, socket.socket):
        return lambda: _has_ended(connection)
    return asks


def _has_ended(connection: socket.socket) -> bool:
    """Return whether nothing more comes from a peer. What it has sent already stays to be read."""
    # gevent's sockets have a plain one within, and would have another greenlet wait.
    plain: socket.socket = getattr(connection, "_sock", connection)
    try:
        return waiting.readable(connection, 0) and not plain.recv(1, socket.MSG_PEEK | _WITHOUT_WAITING)
    except BlockingIOError:
        return False
    except (OSError, ValueError):  # the server has closed it
        return True
