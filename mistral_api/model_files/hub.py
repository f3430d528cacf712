"""The Hugging Face Hub, or a mirror of it in HF_ENDPOINT: which files it has, and downloads that can be continued.

``huggingface_hub`` knows the hub's addresses, the token (HF_TOKEN, or that of ``hf auth login``), proxies, the headers
of the hub's responses and the meaning of its errors. It compares no checksum, and since its 1.x it deletes what an
interrupted download had received. So it makes only single requests here, and ``downloads`` continues a file. The hub's
Xet protocol is not used: over plain HTTP a mirror works too, and an interrupted file can be continued.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import httpx2
import orjson
from huggingface_hub import close_session, constants, get_hf_file_metadata, get_session, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from mistral_api.downloads.client_environment import explain_unusable_environment
from mistral_api.downloads.continued_download import BrokenOff, FileBody
from mistral_api.downloads.errors import DownloadError
from mistral_api.model_files.hub_errors import describe_error, explain_hub_errors
from mistral_api.model_files.known_models import ModelSource, printable

# How much of a list of files is read, and how many of their names are shown.
MOST_LISTING_BYTES, MOST_LISTED = 32 << 20, 200
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub. ``source`` is pinned to a commit."""

    hub: Hub
    source: ModelSource
    size: int
    etag: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.source.name

    @property
    def host(self) -> str:
        """The hub's host."""
        return self.hub.host

    @property
    def identity(self) -> str:
        """What tells its content from any other."""
        return self.etag

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the content, or None where the server does not say it.

        For large files the hub's ETag (``X-Linked-Etag``) is that checksum.
        """
        return self.etag if _SHA256.fullmatch(self.etag) else None

    def open_body(self, start: int) -> AbstractContextManager[FileBody]:
        """Request the bytes from ``start`` on. Raises BrokenOff and DownloadError; each wait has a deadline."""
        return self.hub.open_body(self, start)


class Hub:
    """The hub at an address, by default at HF_ENDPOINT or https://huggingface.co. Close it after use.

    ``huggingface_hub`` reads the environment while it is imported: call ``prepare_environment`` of ``cli.pull`` before
    this module is imported.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        """Raises DownloadError for an address, a token or a proxy that cannot be used."""
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        _require_address(self._endpoint)
        _require_token()
        _require_client()

    @property
    def host(self) -> str:
        """The host of the address, for messages, without a password that may be in the address."""
        return urlsplit(self._endpoint).netloc.rpartition("@")[2]

    def find_file(self, source: ModelSource) -> RemoteFile:
        """Return size, checksum and commit of a file. Raises DownloadError."""
        with explain_hub_errors(self.host, source):
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            found = get_hf_file_metadata(self._url(source), timeout=timeout, endpoint=self._endpoint)
        if found.commit_hash is None or found.etag is None or found.size is None:
            raise self._not_a_hub()
        if not _COMMIT.fullmatch(found.commit_hash) or found.size <= 0:
            raise self._not_a_hub()
        return RemoteFile(self, source.with_revision(found.commit_hash), found.size, found.etag)

    def list_gguf_files(self, source: ModelSource) -> list[str]:
        """Return the names of the GGUF files in the repository. Raises DownloadError."""
        address = f"{self._endpoint}/api/models/{source.repo}/revision/{quote(source.revision, safe='')}"
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        with (
            explain_hub_errors(self.host, source),
            get_session().stream("GET", address, headers=build_hf_headers(), timeout=timeout) as response,
        ):
            hf_raise_for_status(response)
            listing = _bounded(response.iter_bytes())
        try:
            names = [entry["rfilename"] for entry in orjson.loads(listing)["siblings"]]
            return sorted(printable(name) for name in names if name.endswith(".gguf"))[:MOST_LISTED]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._not_a_hub() from error

    @contextlib.contextmanager
    def open_body(self, remote: RemoteFile, start: int) -> Iterator[FileBody]:
        """Request the bytes from ``start`` on, as :meth:`RemoteFile.open_body` does.

        The request goes to the hub each time, not to the storage that the hub redirected to before: addresses there
        expire.
        """
        headers = build_hf_headers() | {"accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        url = self._url(remote.source)
        try:
            with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
                hf_raise_for_status(response)
                yield FileBody(_body_start(response, start, remote.size), response.iter_bytes())
        except (HfHubHTTPError, httpx2.HTTPError) as error:
            failure = BrokenOff if _may_be_temporary(error) else DownloadError
            raise failure(describe_error(error, self.host, remote.source)) from error

    def close(self) -> None:
        """Close its connections."""
        close_session()

    def _not_a_hub(self) -> DownloadError:
        return DownloadError(
            f"{self.host} does not answer as a Hugging Face Hub does; check HF_ENDPOINT and the proxy."
        )

    def _url(self, source: ModelSource) -> str:
        return hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=self._endpoint)


def _bounded(pieces: Iterable[bytes]) -> bytes:
    """Return a whole body; of one that never ends the beginning, which is no JSON."""
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > MOST_LISTING_BYTES:
            break
    return bytes(body)


def _may_be_temporary(error: HfHubHTTPError | httpx2.HTTPError) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError)


def _body_start(response: httpx2.Response, requested: int, size: int) -> int:
    """Return where a response's bytes begin in the file (RFC 9110, sections 14.4 and 15.3.7).

    A response with the whole file must have the file's size, so that a proxy's page does not replace what has been
    received. Raises httpx2.RemoteProtocolError for a response that cannot be used.
    """
    if response.status_code != 206:
        if requested and response.headers.get("content-length", str(size)) != str(size):
            raise httpx2.RemoteProtocolError("the server sent something else than the file")
        return 0
    if not response.headers.get("content-range", "").startswith(f"bytes {requested}-"):
        raise httpx2.RemoteProtocolError("the server sent another part of the file than was asked for")
    return requested


def _require_address(endpoint: str) -> None:
    """Raise DownloadError for an unusable address. The message does not show it: it may hold a password."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise DownloadError("HF_ENDPOINT is no address of a hub: give one such as https://huggingface.co.")


def _require_token() -> None:
    """Raise DownloadError for a token that cannot be read or cannot be sent in a header."""
    try:
        token = get_token() or ""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DownloadError(
            f"HF_TOKEN_PATH: the token in '{constants.HF_TOKEN_PATH}' cannot be read: {reason}; or set HF_TOKEN."
        ) from error
    if not token.isascii():
        raise DownloadError("HF_TOKEN has characters that no token has: copy it anew.")


def _require_client() -> None:
    """Raise DownloadError where no HTTP client can be made with the environment's proxies and certificates."""
    with explain_unusable_environment():
        get_session()
