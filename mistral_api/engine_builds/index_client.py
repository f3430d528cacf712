"""Requests to an index of wheels: where they may go, with which password, and what their failures mean.

A program comes this way, so the transport is TLS's, after every redirection too. The one exception is an index whose
URL the operator has written with ``http://``: its own host is asked so, and no other. Proxies and certificates are
those of the environment (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE), as for ``mistral-api pull``. A user and a password in
the index's URL go to that index alone, and are in no URL that anybody could log.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx2

from mistral_api.downloads.client_environment import explain_unusable_environment
from mistral_api.downloads.continued_download import BrokenOff
from mistral_api.downloads.errors import DownloadError
from mistral_api.system.addresses import is_loopback

# Seconds: for a connection, and for each silence of the server.
CONNECT_SECONDS, SILENCE_SECONDS = 10.0, 30.0
# How much of a page is read, and how long one may take.
MOST_PAGE_BYTES, PAGE_SECONDS = 8 << 20, 60.0


class IndexClient:
    """Asks one index, and what its pages link to."""

    def __init__(self, index_url: str) -> None:
        parts = urlsplit(index_url)
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._origin = (parts.scheme, host)
        self._auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._plain_host = parts.hostname if parts.scheme == "http" else None

    @property
    def host(self) -> str:
        """The index's host, for messages."""
        return self._origin[1]

    @property
    def is_unprotected(self) -> bool:
        """Whether the index is asked over a network without TLS."""
        return self._plain_host is not None and not is_loopback(self._plain_host)

    @contextlib.contextmanager
    def answer(self, method: str, url: str, **headers: str) -> Iterator[httpx2.Response]:
        """Ask, and follow redirections. Raises BrokenOff for what may be temporary, and DownloadError for what is not.

        Within the context too: reading the body fails in the same ways.
        """
        host = host_of(url)
        try:
            with self._client() as client, client.stream(method, url, headers=headers, auth=self._auth_for(url)) as got:
                _require_success(got, host)
                yield got
        except httpx2.UnsupportedProtocol as error:
            raise DownloadError(f"{host} leads to an address that is neither http nor https.") from error
        except httpx2.TransportError as error:
            raise BrokenOff(_describe(error, host)) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise DownloadError(f"{host} cannot be asked ({type(error).__name__}): check ENGINE_INDEX_URL.") from error

    def page(self, url: str, accept: str) -> tuple[bytes, str, str]:
        """Return the body of a page, its media type, and where it was in the end. Raises as :meth:`answer` does."""
        deadline = time.monotonic() + PAGE_SECONDS
        body = bytearray()
        with self.answer("GET", url, accept=accept) as got:
            for piece in got.iter_bytes():
                body += piece
                if time.monotonic() > deadline:
                    raise BrokenOff(f"{host_of(url)} has not sent a page within {PAGE_SECONDS:.0f} s.")
                if len(body) > MOST_PAGE_BYTES:
                    raise DownloadError(f"{host_of(url)} sends a page without an end; check ENGINE_INDEX_URL.")
            kind = got.headers.get("content-type", "").partition(";")[0].strip().lower()
            return bytes(body), kind, str(got.url)

    def _client(self) -> httpx2.Client:
        """Return a client for one request. Raises DownloadError for proxies and certificates that cannot be used."""
        with explain_unusable_environment():
            return httpx2.Client(
                timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
                follow_redirects=True,
                headers={"accept-encoding": "identity"},
                event_hooks={"request": [self._require_protected]},
            )

    def _require_protected(self, request: httpx2.Request) -> None:
        """Refuse to ask without TLS whoever the operator has not named so; each redirection comes here too."""
        if request.url.scheme == "http" and request.url.host != self._plain_host:
            raise DownloadError(f"{self.host} leads to http://{request.url.host}, where nothing protects a program.")

    def _auth_for(self, url: str) -> tuple[str, str] | None:
        parts = urlsplit(url)
        return self._auth if (parts.scheme, parts.netloc) == self._origin else None


def host_of(url: str) -> str:
    """Return the host of a URL, for messages, without a password that may be in it."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _require_success(response: httpx2.Response, host: str) -> None:
    status = response.status_code
    if status in (401, 403):
        raise DownloadError(f"{host} refuses access ({status}): is a user with a password missing in ENGINE_INDEX_URL?")
    if status >= 500 or status == 429:
        raise BrokenOff(f"{host} answered with status {status}; run the command again later.")
    if status >= 400:
        raise DownloadError(f"{host} answered with status {status} for {response.request.url.path}.")


def _describe(error: httpx2.TransportError, host: str) -> str:
    match error:
        case httpx2.TimeoutException():
            return f"{host} did not answer in time."
        case httpx2.ConnectError() | httpx2.ProxyError():
            return f"{host} cannot be reached ({error}): is this machine online, or does it need HTTPS_PROXY?"
        case _:
            return f"The connection to {host} broke off ({type(error).__name__}); run the command again to go on."
