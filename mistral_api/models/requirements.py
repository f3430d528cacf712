"""What the operator has set for the way to the hub, tried before anything is asked."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_session, get_token

from mistral_api.models.errors import PullError


def require_usable(endpoint: str) -> None:
    """Raises PullError that names the variable. Addresses are not shown: they may hold a password."""
    _require_address(endpoint)
    _require_token()
    _require_client()


def _require_address(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PullError("HF_ENDPOINT is no address of a hub: give one such as https://huggingface.co.")


def _require_token() -> None:
    try:
        token = get_token() or ""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise PullError(
            f"HF_TOKEN_PATH: the token in '{constants.HF_TOKEN_PATH}' cannot be read: {reason}; or set HF_TOKEN."
        ) from error
    if not token.isascii():
        raise PullError("HF_TOKEN has characters that no token has: copy it anew.")


def _require_client() -> None:
    """The client is made with what the environment says of proxies and certificates."""
    try:
        get_session()
    except OSError as error:
        raise PullError(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used: {error.strerror or error}.") from error
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise PullError(
            "The proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used: give one such as http://host:3128."
        ) from error
