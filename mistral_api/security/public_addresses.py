"""Which addresses are on the public internet: only those may be contacted because a client asks for it.

The standard library's ``ipaddress`` knows the registries of special addresses (IANA, RFC 6890). What is added here are
the forms that carry another address within them, which it may count as global: a router could lead them back into the
network of this machine.
"""

from __future__ import annotations

import ipaddress

import psutil

# IPv6 addresses that are handed out for the internet at all (IANA, IPv6 Global Unicast Address Assignments).
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Forms with an IPv4 address in them, within that range: Teredo (RFC 4380) and 6to4 (RFC 3056).
_TUNNELS = (ipaddress.IPv6Network("2001::/32"), ipaddress.IPv6Network("2002::/16"))
# Assignments for protocols (RFC 6890), some of which count as global in some versions of Python; the relays of 6to4
# (RFC 7526).
_PROTOCOLS = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("192.88.99.0/24"))


def is_public(address: str) -> bool:
    """Return whether an IP address, as ``getaddrinfo`` writes it, is one of the public internet and not our own."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # with a zone, as in fe80::1%eth0
        return False
    if not parsed.is_global or parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        special = any(parsed in network for network in _PROTOCOLS)
    else:
        special = parsed not in _GLOBAL_UNICAST or any(parsed in network for network in _TUNNELS)
    return not special and parsed not in _own_addresses()


def _own_addresses() -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses of this machine. Public ones among them reach what a firewall keeps from everybody else."""
    texts = [each.address.partition("%")[0] for card in psutil.net_if_addrs().values() for each in card]
    own = set()
    for text in texts:
        try:
            own.add(ipaddress.ip_address(text))
        except ValueError:  # the address of a network card
            continue
    return own
