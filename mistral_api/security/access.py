"""Callers, their scopes, and whether this server may listen to other machines.

No API key exists yet, so every caller on this machine is the one local owner, and nobody beyond loopback is served
unless ALLOW_ANONYMOUS is set. A request that changes the model server for everybody needs the scope ``admin``, which
only the owner has, on a connection within this machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mistral_api.errors import Forbidden, InvalidRequest, Unauthorized
from mistral_api.security.api_key import ADMIN, ALL_SCOPES, ApiKey
from mistral_api.settings import SettingError, Settings

LOCAL_OWNER = "local"
# Headers that a proxy adds about itself and its client: RFC 7239, RFC 9110, and custom.
_PROXY_HEADERS = frozenset(
    {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"},
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request: the owner of their data, their address, scopes, and key, if they sent one."""

    owner: str
    address: str | None
    local: bool
    scopes: frozenset[str] = frozenset()
    key: ApiKey | None = None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def require_safe_listener(settings: Settings) -> None:
    """Refuse to listen to other machines without an API key in force. Raises SettingError."""
    if not is_loopback(settings.api_host) and not settings.allow_anonymous:
        raise SettingError(
            f"API_HOST: '{settings.api_host}' is reachable from other machines and no API key is in force; "
            "listen on 127.0.0.1, or set ALLOW_ANONYMOUS=true to serve anyone who can connect."
        )


def caller_from(address: str | None, host: str, header_names: Iterable[str]) -> Caller:
    """Return the caller of a request from the client's address, the host of the request, and the names of its headers.

    A proxy on this machine forwards requests of callers from elsewhere.
    """
    proxied = not _PROXY_HEADERS.isdisjoint(name.lower() for name in header_names)
    local = address is not None and is_loopback(address) and not proxied
    admin = local and _has_loopback_host(f"//{host}")
    return Caller(LOCAL_OWNER, address, local, ALL_SCOPES if admin else frozenset())


def _has_loopback_host(url: str) -> bool:
    """Whether the host of a URL is loopback by name: anybody can make another name resolve to this machine."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def require_access(caller: Caller, settings: Settings) -> None:
    """Refuse a caller who may not use the API at all. Raises Unauthorized.

    ``bin/serve`` does not listen to other machines then; a server that was started by other means may.
    """
    on_loopback = caller.address is None or is_loopback(caller.address)
    if not on_loopback and not settings.allow_anonymous:
        raise Unauthorized(
            "This server serves other machines only with an API key, and none is in force. "
            "Its operator can set ALLOW_ANONYMOUS=true."
        )


def require_admin(caller: Caller, method: str, origin: str | None, *, is_json: bool) -> None:
    """Refuse a caller who may not change the model server. ``origin`` is the header of that name.

    Raises Forbidden, and InvalidRequest for a body that is not declared as JSON.

    A web page in the owner's browser can send requests to loopback too. The browser names the page in ``Origin``, and
    sends JSON across sites only where the server agreed to it (WHATWG Fetch, CORS protocol), which ours never does.
    """
    if ADMIN not in caller.scopes:
        raise Forbidden(
            f"This needs the scope '{ADMIN}': only requests from this machine itself, to localhost and through no "
            "proxy, have it."
        )
    if origin is not None and not _has_loopback_host(origin):
        raise Forbidden("A web page of another host may not change the model server.")
    if method not in ("GET", "HEAD") and not is_json:
        text = "Expected a body of the content type 'application/json'."
        refusal = InvalidRequest(text, code="unsupported_media_type")
        refusal.status = 415
        raise refusal
