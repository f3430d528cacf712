"""Which web pages may send requests here.

A page of any site can have the browser send requests to loopback or into the local network, also some whose body no
preflight asks about (``text/plain``). The browser says in ``Origin`` whose page it is, and in ``Sec-Fetch-Site`` how
far that is from us (WHATWG Fetch, section 3.2; W3C Fetch Metadata, section 2). Programs that are no browsers send
neither.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from mistral_api.errors import Forbidden
from mistral_api.security.request_head import RequestHead

_FOREIGN_SITES = ("cross-site", "same-site")
_SCHEMES = ("http://", "https://")


class OriginRule:
    """The origins that are let in: our own, and those named. ``pages`` are the paths of pages that we show."""

    def __init__(self, origins: Iterable[str], pages: Container[str]) -> None:
        self._origins = frozenset(origins)
        self._pages = pages

    def check(self, head: RequestHead) -> None:
        """Refuse a request that a page of another origin has sent. Raises Forbidden."""
        origin = head.header("ORIGIN")
        if origin is not None:
            if origin not in self._origins and not _is_own(origin, head):
                _refuse(f"the origin '{origin}'")
        elif head.header("SEC_FETCH_SITE") in _FOREIGN_SITES and not self._is_visit(head):
            _refuse("another site")

    def _is_visit(self, head: RequestHead) -> bool:
        """Whether somebody follows a link of another site to one of our pages, which that site cannot read."""
        return (
            head.method in ("GET", "HEAD")
            and head.header("SEC_FETCH_MODE") == "navigate"
            and head.header("SEC_FETCH_DEST") == "document"
            and head.path in self._pages
        )


def is_preflight(head: RequestHead) -> bool:
    """Whether a browser asks if a page may send a request (WHATWG Fetch, CORS-preflight request). It sends no key."""
    return (
        head.method == "OPTIONS"
        and head.header("ORIGIN") is not None
        and head.header("ACCESS_CONTROL_REQUEST_METHOD") is not None
    )


def _is_own(origin: str, head: RequestHead) -> bool:
    """Whether an origin is ours: the host and port that the request was sent to, or that a proxy says it was sent to.

    The host is one that we answer to. A proxy may speak HTTPS to the browser and HTTP to us.
    """
    for scheme in _SCHEMES:
        if origin.startswith(scheme):
            authority = origin[len(scheme) :].lower()
            own = (head.header("HOST"), head.header("X_FORWARDED_HOST"))
            return any(host is not None and authority == host.lower() for host in own)
    return False


def _refuse(page: str) -> None:
    raise Forbidden(
        f"This server takes no requests of web pages of {page}. Its operator can name the origin in CORS_ORIGINS.",
        code="origin_not_allowed",
    )
