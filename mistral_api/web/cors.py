"""CORS: what browsers are told about the pages that CORS_ORIGINS names. Without that setting they are told nothing."""

from __future__ import annotations

import re

from flask import Flask
from flask_cors import CORS

from mistral_api.settings import Settings

# How long a browser may remember the answer to its preflight, in seconds.
_MAX_AGE = 600
# Headers of ours that a page may read.
_EXPOSED = (
    "X-Request-Id", "X-Session-Id", "X-Cache", "X-Ignored-Tools", "X-Queue-Position", "X-Error-Source",
    "Retry-After",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
)  # fmt: skip


def allow_origins(app: Flask, settings: Settings) -> None:
    """Let the pages of the named origins, and no others, read responses, and send keys and cookies.

    ``security/origins.py`` has refused the requests of others before. A public name may be looked at from a page in a
    local network: Chrome asks about that too (Private Network Access).
    """
    if not settings.cors_origins:
        return
    CORS(
        app,
        # Patterns, since Flask-CORS takes the brackets of an IPv6 address for a pattern, and always sends ``Vary``
        # with patterns.
        origins=[re.compile(rf"\A{re.escape(origin)}\Z") for origin in settings.cors_origins],
        supports_credentials=True,
        expose_headers=list(_EXPOSED),
        max_age=_MAX_AGE,
        always_send=False,
        allow_private_network=True,
    )
