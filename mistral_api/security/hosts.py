"""Which names in the ``Host`` header this server answers to.

A web page of ``evil.example`` may have its name resolve to 127.0.0.1, and then reads what this server answers, as its
own (DNS rebinding: CVE-2024-28224). The browser says which name it has asked for in ``Host``, so only names that we
know are answered. An IP address is none that anybody could have resolve to somewhere else.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from mistral_api.errors import MisdirectedRequest
from mistral_api.security.request_head import RequestHead

# RFC 9110, section 7.2: host and port. A host is a name, an IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~%-]+)?)\]|(?P<name>[0-9A-Za-z_.-]+))(?::[0-9]{1,5})?")
ANY_HOST = "*"


def host_name(host: str) -> str | None:
    """Return the name or address of a ``Host`` header in small letters, without its port; None where it has none."""
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    return (match["ipv6"] or match["name"]).lower().removesuffix(".") or None


def is_address(name: str) -> bool:
    """Whether a name is an IPv4 or IPv6 address, as browsers spell it: four numbers, or groups of digits."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


class HostRule:
    """The names that are answered: loopback's, addresses, and those given. ``.example.com`` stands for all below it."""

    def __init__(self, names: Iterable[str]) -> None:
        given = [name.lower().removeprefix("*").removesuffix(".") if name != ANY_HOST else name for name in names]
        self._any = ANY_HOST in given
        self._names = frozenset(name for name in given if not name.startswith(".")) | {"localhost"}
        self._parents = (".localhost", *(name for name in given if name.startswith(".")))
        # Almost every request has one of very few hosts. No other host gets in here, so it stays small.
        self._answered: set[str] = set()

    def check(self, head: RequestHead) -> None:
        """Refuse a request for another host, also one that a proxy says it was sent to. Raises MisdirectedRequest."""
        host = head.header("HOST") or ""
        if host not in self._answered:
            self._require(host)
            if len(self._answered) < 1000:
                self._answered.add(host)
        forwarded = head.header("X_FORWARDED_HOST")
        if forwarded is not None:
            for each in forwarded.split(","):
                self._require(each.strip())

    def _require(self, host: str) -> None:
        name = host_name(host)
        if name is None or not self._is_answered(name):
            quoted = f"'{host}'" if name else "that is empty or no host name"
            raise MisdirectedRequest(
                f"This server does not answer to the host {quoted}. Its operator can name it in ALLOWED_HOSTS."
            )

    def _is_answered(self, name: str) -> bool:
        return self._any or name in self._names or name.endswith(self._parents) or is_address(name)
