"""Asking the model server how it is, by the standard library alone: the supervisor stays small."""

from __future__ import annotations

import http.client
import socket
from enum import Enum

from mistral_api.addresses import reachable_host
from mistral_api.settings import Settings
from mistral_api.supervisor.errors import CannotStart

PROBE_SECONDS = 2.0


class Answer(Enum):
    """What ``GET /health`` gave: 200, 503 while the model is loaded, anything else or nothing."""

    READY = "ready"
    LOADING = "loading"
    NONE = "none"


def probe(settings: Settings) -> Answer:
    """Ask once, within a deadline."""
    host = reachable_host(settings.model_server_host)
    connection = http.client.HTTPConnection(host, settings.model_server_port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return Answer.NONE
    finally:
        connection.close()
    return {200: Answer.READY, 503: Answer.LOADING}.get(status, Answer.NONE)


def require_free_port(settings: Settings) -> None:
    """Refuse a port that somebody else listens on. Raises CannotStart."""
    host, port = settings.model_server_host, settings.model_server_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        raise CannotStart(
            f"MODEL_SERVER_PORT: {host}:{port} cannot be listened on: {error.strerror}; "
            "stop the program that uses it, or choose another port."
        ) from error
