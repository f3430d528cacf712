"""Proxies and certificates of the environment, with which every HTTP client of a download is made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx2

from mistral_api.downloads.errors import DownloadError


@contextlib.contextmanager
def explain_unusable_environment() -> Iterator[None]:
    """Turn what making a client raises for proxies and certificates that cannot be used into DownloadError."""
    try:
        yield
    except OSError as error:
        raise DownloadError(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used: {error.strerror or error}.") from error
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise DownloadError(
            "The proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used: give one such as http://host:3128."
        ) from error
