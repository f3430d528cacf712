"""The head of a request: what is known of it before its body is read, whoever has read it.

Flask's views have it from the WSGI environment, the web server from its own parser, before it receives the body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Returns the value of a header, or None where it was not sent. Names are spelled as in the WSGI environment, without
# its ``HTTP_``: ``X_FORWARDED_FOR``. A header that was sent twice has both values, with a comma between them.
HeaderReader = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Method, path, the address of whoever holds the other end of the connection, and a reader of the headers."""

    method: str
    path: str
    peer: str | None
    header: HeaderReader


# What waitress takes out of the environment unless it is told otherwise (``clear_untrusted_proxy_headers``,
# waitress/proxy_headers.py). Without them a request through a proxy on this machine would look like one of its own.
_CLEARED = frozenset((
    "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "X_FORWARDED_PORT", "X_FORWARDED_BY", "FORWARDED",
))  # fmt: skip


def head_from_environ(environ: Mapping[str, Any]) -> RequestHead:
    """Return the head of a WSGI request (PEP 3333)."""

    def header(name: str) -> str | None:
        value: str | None = environ.get("HTTP_" + name)
        return _received_header(environ, name) if value is None and name in _CLEARED else value

    return RequestHead(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), environ.get("REMOTE_ADDR"), header)


def _received_header(environ: Mapping[str, Any], name: str) -> str | None:
    """Return a header as waitress received it, whose channel gives the environment a method; None under others."""
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    requests = getattr(channel, "requests", None)
    value: str | None = requests[0].headers.get(name) if requests else None
    return value
