"""Who is calling, and whether this server may serve strangers.

No API key exists yet, so every caller on this machine is the one local owner, and nobody beyond
loopback is served unless ALLOW_ANONYMOUS says so.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from flask import Request

from mistral_api.errors import Unauthorized
from mistral_api.settings import SettingError, Settings

LOCAL_OWNER = "local"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the owner that their data belongs to, and where they call from."""

    owner: str
    address: str | None
    local: bool


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def require_safe_listener(settings: Settings) -> None:
    """Refuse to listen to the world without an API key in force. Raises SettingError."""
    if not is_loopback(settings.api_host) and not settings.allow_anonymous:
        raise SettingError(
            f"API_HOST: '{settings.api_host}' is reachable from other machines and no API key is in force; "
            "listen on 127.0.0.1, or set ALLOW_ANONYMOUS=true to serve anyone who can connect."
        )


def identify(request: Request) -> Caller:
    """The caller of a request. A proxy on this machine speaks for callers from elsewhere."""
    address = request.remote_addr
    local = address is not None and is_loopback(address) and "X-Forwarded-For" not in request.headers
    return Caller(LOCAL_OWNER, address, local)


def require_access(request: Request, settings: Settings) -> Caller:
    """The caller, if they may use the API at all. Raises Unauthorized.

    This holds also where the server was started by other means than ``bin/serve`` and listens to the world.
    """
    caller = identify(request)
    on_loopback = caller.address is None or is_loopback(caller.address)
    if not on_loopback and not settings.allow_anonymous:
        raise Unauthorized(
            "This server serves other machines only with an API key, and none is in force. "
            "Its operator can set ALLOW_ANONYMOUS=true."
        )
    return caller
