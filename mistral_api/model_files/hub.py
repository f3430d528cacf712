"""The Hugging Face Hub, or a mirror of it in HF_ENDPOINT: which files it has, and downloads that can be continued.

``huggingface_hub`` knows the hub's addresses, the token (HF_TOKEN, or that of ``hf auth login``), proxies, the headers
of the hub's responses and the meaning of its errors. It compares no checksum, and since its 1.x it deletes what an
interrupted download had received. So it makes only single requests here, and :class:`Download` continues a file. The
hub's Xet protocol is not used: over plain HTTP a mirror works too, and an interrupted file can be continued.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

import httpx2
import orjson
from huggingface_hub import close_session, constants, get_hf_file_metadata, get_session, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from mistral_api.model_files.hub_errors import describe_error, explain_hub_errors
from mistral_api.model_files.known_models import DamagedFile, ModelSource, PullError, printable

# Seconds before each attempt that follows one without a single new byte. After the last of them it is given up.
PAUSES = (1.0, 2.0, 4.0)
# How much of a list of files is read, and how many of their names are shown.
MOST_LISTING_BYTES, MOST_LISTED = 32 << 20, 200
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub. ``source`` is pinned to a commit."""

    source: ModelSource
    size: int
    etag: str

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the content, or None where the server does not say it.

        For large files the hub's ETag (``X-Linked-Etag``) is that checksum.
        """
        return self.etag if _SHA256.fullmatch(self.etag) else None


@dataclass(frozen=True, slots=True)
class FileBody:
    """The bytes of a file from ``start`` on. It is 0 where the server ignored the requested start."""

    start: int
    pieces: Iterator[bytes]


class Hub:
    """The hub at an address, by default at HF_ENDPOINT or https://huggingface.co. Close it after use.

    ``huggingface_hub`` reads the environment while it is imported: call ``prepare_environment`` of ``cli.pull`` before
    this module is imported.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        """Raises PullError for an address, a token or a proxy that cannot be used."""
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        _require_address(self._endpoint)
        _require_token()
        _require_client()

    @property
    def host(self) -> str:
        """The host of the address, for messages, without a password that may be in the address."""
        return urlsplit(self._endpoint).netloc.rpartition("@")[2]

    def find_file(self, source: ModelSource) -> RemoteFile:
        """Return size, checksum and commit of a file. Raises PullError."""
        with explain_hub_errors(self.host, source):
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            found = get_hf_file_metadata(self._url(source), timeout=timeout, endpoint=self._endpoint)
        if found.commit_hash is None or found.etag is None or found.size is None:
            raise self._not_a_hub()
        if not _COMMIT.fullmatch(found.commit_hash) or found.size <= 0:
            raise self._not_a_hub()
        return RemoteFile(source.with_revision(found.commit_hash), found.size, found.etag)

    def list_gguf_files(self, source: ModelSource) -> list[str]:
        """Return the names of the GGUF files in the repository. Raises PullError."""
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
        """Request the bytes from ``start`` on. Raises httpx2.HTTPError; no wait is longer than the timeout.

        The request goes to the hub each time, not to the storage that the hub redirected to before: addresses there
        expire.
        """
        headers = build_hf_headers() | {"accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", self._url(remote.source), headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            yield FileBody(_body_start(response, start, remote.size), response.iter_bytes())

    def close(self) -> None:
        """Close its connections."""
        close_session()

    def _not_a_hub(self) -> PullError:
        return PullError(f"{self.host} does not answer as a Hugging Face Hub does; check HF_ENDPOINT and the proxy.")

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


class Download:
    """The download of one file to ``path``, which has the file's first bytes already where it exists.

    ``on_progress`` is called with the number of bytes in ``path`` whenever that changes.
    """

    def __init__(self, hub: Hub, remote: RemoteFile, path: Path, on_progress: Callable[[int], None]) -> None:
        self._hub = hub
        self._remote = remote
        self._path = path
        self._on_progress = on_progress

    def run(self) -> None:
        """Download until all bytes are there, and try again when a connection breaks.

        Raises PullError, and OSError of the disk. What has been received stays for the next download.
        """
        attempts_without_progress = 0
        with self._path.open("ab") as file:
            while (before := file.tell()) != self._remote.size:
                error = self._attempt(file, before)
                attempts_without_progress = 0 if file.tell() > before else attempts_without_progress + 1
                if error is not None and file.tell() != self._remote.size:
                    self._pause(error, attempts_without_progress)

    def _attempt(self, file: BinaryIO, start: int) -> Exception | None:
        """Write what comes from ``start`` on. Return the error that ended it too early and may be temporary."""
        try:
            with self._hub.open_body(self._remote, start) as body:
                if body.start < start:
                    file.truncate(body.start)
                self._write(file, body.pieces)
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise self._pull_error(error) from error
            return error
        except httpx2.TransportError as error:
            return error
        except httpx2.HTTPError as error:
            raise self._pull_error(error) from error
        finally:
            file.seek(0, 2)
        return None if file.tell() == self._remote.size else httpx2.RemoteProtocolError("the answer was too short")

    def _write(self, file: BinaryIO, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            file.write(piece)
            size = file.tell()
            if size > self._remote.size:
                file.truncate(0)
                raise DamagedFile(f"{self._hub.host} sent more bytes of {self._remote.source.name} than it announced.")
            self._on_progress(size)

    def _pause(self, error: Exception, attempts_without_progress: int) -> None:
        """Wait before the next attempt. Raises PullError after too many attempts without progress."""
        if attempts_without_progress > len(PAUSES):
            raise self._pull_error(error) from error
        time.sleep(PAUSES[max(attempts_without_progress, 1) - 1])

    def _pull_error(self, error: Exception) -> PullError:
        return PullError(describe_error(error, self._hub.host, self._remote.source))


def _require_address(endpoint: str) -> None:
    """Raise PullError for an unusable address. The message does not show it: it may hold a password."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PullError("HF_ENDPOINT is no address of a hub: give one such as https://huggingface.co.")


def _require_token() -> None:
    """Raise PullError for a token that cannot be read or cannot be sent in a header."""
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
    """Raise PullError where no HTTP client can be made with the environment's proxies and certificates."""
    try:
        get_session()
    except OSError as error:
        raise PullError(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used: {error.strerror or error}.") from error
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise PullError(
            "The proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used: give one such as http://host:3128."
        ) from error
