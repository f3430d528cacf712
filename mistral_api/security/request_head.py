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


def head_from_environ(environ: Mapping[str, Any]) -> RequestHead:
    """Return the head of a WSGI request (PEP 3333)."""
    return RequestHead(
        environ["REQUEST_METHOD"],
        environ.get("PATH_INFO", ""),
        environ.get("REMOTE_ADDR"),
        lambda name: environ.get("HTTP_" + name),
    )
