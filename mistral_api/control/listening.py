"""Addresses that a server of ours is to listen on: whether it can, and in one sentence why not."""

from __future__ import annotations

import errno
import socket

from mistral_api.errors import StartError
from mistral_api.system.addresses import claim_address

_HINT = "use 127.0.0.1 for this machine alone, or 0.0.0.0 for all of its addresses"
# Ports below this one are for the system's own services (ip(7)).
_FIRST_OPEN_PORT = 1024


def bind_address(host: str, port: int, *, host_setting: str, port_setting: str) -> socket.socket:
    """Return a bound socket that does not listen yet. Raises StartError, which names the settings."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no host name"
        raise StartError(f"{host_setting}: '{host}' is no address of this machine: {reason}; {_HINT}.") from error
    try:
        claim_address(listener)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise refused_address(host, port, error, host_setting=host_setting, port_setting=port_setting) from error
    return listener


def require_free_address(host: str, port: int, *, host_setting: str, port_setting: str) -> None:
    """Raise StartError where nobody can listen there now."""
    with bind_address(host, port, host_setting=host_setting, port_setting=port_setting) as listener:
        try:
            listener.listen(1)
        except OSError as error:
            raise refused_address(host, port, error, host_setting=host_setting, port_setting=port_setting) from error


def refused_address(host: str, port: int, error: OSError, *, host_setting: str, port_setting: str) -> StartError:
    """Return the sentence for an address that the system does not let us listen on."""
    if error.errno == errno.EADDRNOTAVAIL:
        return StartError(f"{host_setting}: '{host}' is no address of this machine; {_HINT}.")
    cannot = f"{port_setting}: cannot listen on {host}:{port}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return StartError(f"{cannot}. Stop the program that uses it, or choose another port.")
    if error.errno == errno.EACCES and port < _FIRST_OPEN_PORT:
        return StartError(f"{cannot}. Ports below {_FIRST_OPEN_PORT} need privileges: choose another port.")
    return StartError(f"{cannot}. Choose another port.")
