"""Heads of requests for tests of what decides by them alone."""

from __future__ import annotations

from collections.abc import Mapping

from mistral_api.security.request_head import RequestHead


def request_head(
    method: str = "GET",
    path: str = "/v1/models",
    peer: str | None = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> RequestHead:
    """Return a head with these headers, and ``Host: localhost:9000`` unless they have another."""
    sent = {"Host": "localhost:9000"} | dict(headers or {})
    found = {name.upper().replace("-", "_"): value for name, value in sent.items()}
    return RequestHead(method, path, peer, found.get)
