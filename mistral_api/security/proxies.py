"""The address of a client, also behind a proxy.

A proxy says in headers for whom it asks. Anybody can send these headers, so they count only from TRUSTED_PROXIES. From
others they still show one thing: that the client is not the one at the other end of the connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mistral_api.security.addresses import Address, parse_address
from mistral_api.security.request_head import RequestHead
from mistral_api.setting_kinds import IPNetwork

# Lists of addresses, to which every proxy adds that of its own client at the end (RFC 7239; X-Forwarded-For by custom).
_LISTS = ("X_FORWARDED_FOR", "FORWARDED")
# One address: nginx and Traefik, Cloudflare, Akamai and Cloudflare, Fly.io, Fastly, Azure.
_SINGLE = ("X_REAL_IP", "CF_CONNECTING_IP", "TRUE_CLIENT_IP", "FLY_CLIENT_IP", "FASTLY_CLIENT_IP", "X_CLIENT_IP")
# Others that only proxies send (RFC 9110, section 7.6.3, and custom).
_MARKS = (
    "VIA",
    "X_FORWARDED_HOST",
    "X_FORWARDED_PROTO",
    "X_FORWARDED_PORT",
    "X_FORWARDED_SERVER",
    "CF_RAY",
    "CDN_LOOP",
)
_FORWARDED_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;"\s]+))', re.IGNORECASE)


def is_proxied(head: RequestHead) -> bool:
    """Whether a request has a header that proxies add about themselves and their client."""
    return any(head.header(name) is not None for name in _LISTS + _SINGLE + _MARKS)


class TrustedProxies:
    """The networks whose proxies are believed."""

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        self._networks = tuple(networks)

    def client_address(self, head: RequestHead) -> str | None:
        """Return the address of the client of a request that was proxied: that of the proxy, where nobody can know.

        Headers that contradict each other are such a case: one of them came from the client itself.
        """
        if not self._networks or not self.trusts(parse_address(head.peer or "")):
            return head.peer
        found = {self._client_in(values) for values in _values(head)} - {None}
        return str(found.pop()) if len(found) == 1 else head.peer

    def _client_in(self, values: list[str]) -> Address | None:
        """Return the last address that is not of a trusted proxy: what stands before it, a client may have written.

        Where all are trusted it is the first; None where it is unreadable.
        """
        address: Address | None = None
        for value in reversed(values):
            address = parse_address(value)
            if address is None or not self.trusts(address):
                return address
        return address

    def trusts(self, address: Address | None) -> bool:
        """Whether this is the address of a trusted proxy."""
        return address is not None and any(address in network for network in self._networks)


def _values(head: RequestHead) -> list[list[str]]:
    """Return the addresses in each header that has any, in their order."""
    named = {name: head.header(name) for name in _LISTS + _SINGLE}
    values = {name: value.split(",") for name, value in named.items() if value}
    if "FORWARDED" in values:
        values["FORWARDED"] = [_forwarded_for(element) for element in values["FORWARDED"]]
    return list(values.values())


def _forwarded_for(element: str) -> str:
    match = _FORWARDED_FOR.search(element)
    return "" if match is None else match[1] or match[2] or ""
