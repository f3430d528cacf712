"""The API's listening socket, taken before anything else is started."""

from __future__ import annotations

import socket

from mistral_api.addresses import claim_address
from mistral_api.serving.errors import StartError


def bind_listener(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises StartError with one sentence."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"API_HOST: '{host}' is not an address of this machine: {error.strerror}.") from error
    try:
        claim_address(listener)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartError(
            f"API_PORT: cannot listen on {host}:{port}: {error.strerror}. "
            "Stop the program that uses it, or choose another port with --port."
        ) from error
    return listener
