"""The secret of an API key in the headers of a request."""

from __future__ import annotations

from mistral_api.errors import Unauthorized
from mistral_api.security.request_head import RequestHead


def sent_secret(head: RequestHead) -> str | None:
    """Return the secret in ``Authorization: Bearer …`` (OpenAI) or ``x-api-key`` (Anthropic); None where none is sent.

    Raises Unauthorized for another scheme, and for two secrets that differ: it would be unclear who is asking.
    """
    bearer, api_key = _bearer(head.header("AUTHORIZATION")), (head.header("X_API_KEY") or "").strip()
    if bearer and api_key and bearer != api_key:
        raise Unauthorized("The headers 'Authorization' and 'x-api-key' have different API keys. Send one of them.")
    return bearer or api_key or None


def _bearer(value: str | None) -> str:
    """Return the secret in the header ``Authorization`` (RFC 6750, section 2.1); empty where there is none."""
    if value is None or not value.strip():
        return ""
    scheme, _, secret = value.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("The header 'Authorization' must have the form 'Bearer KEY'.")
    return secret.strip()
