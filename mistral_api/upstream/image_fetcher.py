"""Fetching an image for a client, from a public address and nowhere else (``ALLOW_IMAGE_URLS``).

The client chooses the URL, so what it names must not be reached with the rights of this machine. One parser
(urllib3's) reads the URL. The name is resolved once, every address that comes back must be public, and the connection
goes to one of these addresses: nothing is resolved again. TLS proves the name. No redirect is followed, no proxy of
the environment is used, and no credentials are sent. What arrives counts as an image by its first bytes alone.

All of it shares one deadline and one bound of bytes (``fetch_budget``). The thread ``disconnect-watcher`` ends a
fetch that takes too long, however slowly its bytes drip in, or whose client has left.

Only a server that fetches images imports this module: urllib3 takes 1 MB.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Timeout, parse_url

from mistral_api.errors import ApiError, Unavailable
from mistral_api.security.public_addresses import is_public
from mistral_api.system.data_urls import data_url
from mistral_api.upstream.cancellation import DisconnectWatcher, UpstreamCall
from mistral_api.upstream.errors import cancelled_error
from mistral_api.upstream.fetch_budget import FetchBudget, ImageNotFetched
from mistral_api.version import VERSION

# The most fetches, and the most look-ups of names, at the same time in this process.
MOST_AT_ONCE = 4
MOST_URL_CHARACTERS = 4096
_PIECE = 64 << 10
_DEFAULT_PORTS = {"http": 80, "https": 443}
# A URL that parsers could read differently is refused: white space, controls, backslashes, other than ASCII.
_PLAIN_URL = re.compile(r"[!-\[\]-~]+")
_HOST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
# The first bytes of the formats that are known to models or to llama.cpp's reader (stb_image).
_MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM.{4}\0{4}", re.DOTALL), "image/bmp"),
)


@dataclass(frozen=True, slots=True)
class _Location:
    """A URL, read once. ``host`` is a name in small letters, or an IP address without brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class ImageFetcher:
    """Fetches images. One for the application; safe to use from many threads."""

    def __init__(self, watcher: DisconnectWatcher, is_allowed: Callable[[str], bool] = is_public) -> None:
        """``watcher`` ends fetches, and stays its owner's to close; ``is_allowed``: which addresses may be asked."""
        self._watcher = watcher
        self._is_allowed = is_allowed
        self._fetches = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._lookups = threading.BoundedSemaphore(MOST_AT_ONCE)

    def fetch(self, url: str, budget: FetchBudget, call: UpstreamCall) -> str:
        """Return the image at a URL as a data URL, and take what it needs from the budget.

        ``call``: the request that it is fetched for. Raises ImageNotFetched, Unavailable where too many are being
        fetched, and ClientClosedRequest.
        """
        location = _read_url(url)
        if not self._fetches.acquire(timeout=budget.seconds):
            raise Unavailable("Too many images are being fetched; try again.", code="overloaded")
        try:
            addresses = self._public_addresses(location, budget)
            content = self._fetch_watched(location, addresses, budget, call)
        finally:
            self._fetches.release()
        url = data_url(_media_type(content), base64.b64encode(content).decode("ascii"))
        budget.bytes -= len(url)
        return url

    def _public_addresses(self, location: _Location, budget: FetchBudget) -> list[str]:
        """Return the addresses of the host. Raises ImageNotFetched unless all of them may be contacted."""
        addresses = self._resolve(location, budget)
        if not all(self._is_allowed(address) for address in addresses):
            raise ImageNotFetched("leads to an address that is not public")
        return addresses

    def _resolve(self, location: _Location, budget: FetchBudget) -> list[str]:
        """Resolve the host on a thread of its own: the system's resolver knows no deadline."""
        if not self._lookups.acquire(timeout=budget.seconds):
            raise ImageNotFetched("has a host whose name was not resolved in time")
        found: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                found.put(_addresses_of(location.host, location.port))
            finally:
                self._lookups.release()

        threading.Thread(target=look_up, name="image-host-lookup", daemon=True).start()
        try:
            addresses = found.get(timeout=budget.seconds)
        except queue.Empty:
            raise ImageNotFetched("has a host whose name was not resolved in time") from None
        if not addresses:
            raise ImageNotFetched("has a host that cannot be found")
        return addresses

    def _fetch_watched(
        self, location: _Location, addresses: list[str], budget: FetchBudget, call: UpstreamCall
    ) -> bytes:
        """Fetch from the first address that accepts a connection; time and the client's leaving end it."""
        watched = _FetchCall(lambda: budget.expired or call.cancelled or call.client_is_gone())
        self._watcher.add(watched)
        try:
            content = _fetch_from_any(location, addresses, budget, watched)
        except (HTTPError, OSError, ImageNotFetched) as error:
            raise _failure(error, watched, budget) from error
        finally:
            self._watcher.remove(watched)
            watched.close()
        if watched.cancelled:  # a body that ends with its connection seems whole then
            raise _failure(ImageNotFetched("did not arrive in time"), watched, budget)
        return content


def _failure(error: Exception, watched: UpstreamCall, budget: FetchBudget) -> ApiError | ImageNotFetched:
    """Return why a fetch ended, which the error of its connection does not tell."""
    if watched.reason == "client" and not budget.expired:
        return cancelled_error("client")
    if watched.reason == "shutdown":
        return cancelled_error("shutdown")
    if budget.expired or isinstance(error, urllib3.exceptions.TimeoutError):
        return ImageNotFetched("did not arrive in time")
    return error if isinstance(error, ImageNotFetched) else ImageNotFetched("cannot be fetched from its host")


def _read_url(url: str) -> _Location:
    """Read a URL with one parser. Raises ImageNotFetched for whatever another could read differently."""
    if len(url) > MOST_URL_CHARACTERS or not _PLAIN_URL.fullmatch(url):
        raise ImageNotFetched("is no plain URL: expected printable ASCII without spaces and backslashes")
    try:
        parsed = parse_url(url)
    except LocationParseError as error:
        raise ImageNotFetched("is no URL") from error
    scheme, host = parsed.scheme or "", (parsed.host or "").removesuffix(".")
    if scheme not in _DEFAULT_PORTS:
        raise ImageNotFetched("is no http or https URL")
    if parsed.auth is not None:
        raise ImageNotFetched("has a user name or a password, which are not sent")
    port = parsed.port or _DEFAULT_PORTS[scheme]
    if port not in _DEFAULT_PORTS.values() and port < 1024:
        raise ImageNotFetched("has a port that is not one of the web")
    return _Location(scheme, _plain_host(host), port, parsed.request_uri)


def _plain_host(host: str) -> str:
    if host.startswith("["):
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv6Address(host[1:-1]))
    elif _HOST_NAME.fullmatch(host):
        return host
    raise ImageNotFetched("has a host that is neither a name nor an address")


def _addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of a host, the system's order kept; none where it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _FetchCall(UpstreamCall):
    """A fetch that can be cancelled. Close it after use."""

    def __init__(self, should_end: Callable[[], bool]) -> None:
        super().__init__(should_end)
        self._handles: list[socket.socket] = []

    def watch(self, connection: socket.socket) -> None:
        """Take a handle of our own of a connection: TLS takes the socket over, and its owner may close it early."""
        handle = connection.dup()
        self._handles.append(handle)
        self.attach(handle)

    def close(self) -> None:
        """Close the handles."""
        for handle in self._handles:
            handle.close()


class _WatchedConnection(HTTPConnection):
    """A connection that its call can shut down from its first moment on, the TLS handshake included."""

    def __init__(self, *args: Any, call: _FetchCall, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._call = call

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        self._call.watch(connection)
        return connection


class _WatchedTlsConnection(_WatchedConnection, HTTPSConnection):
    """The same over TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    """The pool hands the keyword ``call`` on to its connections, as urllib3 does with what it does not know."""

    ConnectionCls = _WatchedConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTlsConnection


def _fetch_from_any(location: _Location, addresses: list[str], budget: FetchBudget, call: _FetchCall) -> bytes:
    """Return the content from the first address that accepts a connection."""
    for address in addresses[:-1]:
        with contextlib.suppress(urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            return _fetch_from(location, address, budget, call)
    return _fetch_from(location, addresses[-1], budget, call)


def _fetch_from(location: _Location, address: str, budget: FetchBudget, call: _FetchCall) -> bytes:
    headers = {
        "Host": location.authority,
        "User-Agent": f"mistral-local-api/{VERSION}",
        "Accept": "image/*",
        "Accept-Encoding": "identity",
    }
    with _pool(location, address, call) as pool:
        response = pool.urlopen(
            "GET",
            location.target,
            headers=headers,
            redirect=False,
            retries=False,
            timeout=Timeout(total=budget.seconds),
            preload_content=False,
            decode_content=False,
        )
        try:
            _require_content(response.status)
            return b"".join(_bounded(response, budget.bytes * 3 // 4))
        finally:
            response.close()


def _pool(location: _Location, address: str, call: _FetchCall) -> urllib3.HTTPConnectionPool:
    """Return a pool of one connection to an address; what it proves by TLS is the name in the URL."""
    if location.scheme == "http":
        return _Pool(address, location.port, call=call)
    return _TlsPool(
        address,
        location.port,
        cert_reqs="CERT_REQUIRED",
        ca_certs=certifi.where(),
        server_hostname=location.host,
        assert_hostname=location.host,
        call=call,
    )


def _require_content(status: int) -> None:
    if 300 <= status < 400:
        raise ImageNotFetched(f"is answered with a redirect ({status}), which is not followed")
    if status != 200:
        raise ImageNotFetched(f"is answered with status {status}")


def _bounded(response: urllib3.BaseHTTPResponse, most_bytes: int) -> Iterator[bytes]:
    """Yield the pieces of a body. Raises ImageNotFetched once there are too many."""
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() and len(length) < 20 else 0
    if size <= most_bytes:
        size = 0
        for piece in response.stream(_PIECE, decode_content=False):
            size += len(piece)
            if size > most_bytes:
                break
            yield piece
    if size > most_bytes:
        raise ImageNotFetched("is too large for a request (MAX_REQUEST_BYTES)")


def _media_type(content: bytes) -> str:
    """Return the media type that the first bytes show, whatever the server said. Raises ImageNotFetched."""
    for magic, media_type in _MAGIC:
        if magic.match(content):
            return media_type
    raise ImageNotFetched("leads to no PNG, JPEG, GIF, WebP or BMP image")
