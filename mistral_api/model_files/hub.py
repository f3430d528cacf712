"""The Hugging Face Hub: files, bytes, resume.

What the operator has set for the way to the hub, tried before anything is asked.

The Hugging Face Hub, or a mirror of it in HF_ENDPOINT: what it has, and its bytes from any place on.

``huggingface_hub`` knows the addresses, the token (HF_TOKEN, or that of ``hf auth login``), proxies, the headers of
the hub's answers and the meaning of its errors. It compares no checksum and, since its 1.x, deletes what an interrupted
download had got; hence only single requests are made through it, and :mod:`mistral_api.models.transfer` does the rest.
Its Xet protocol is not used: over plain HTTP a mirror works too and an interrupted file can go on.

Getting one file's bytes: going on where an interrupted attempt ended, and trying again when a connection breaks.
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
from huggingface_hub import close_session, constants, get_hf_file_metadata, get_session, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from mistral_api.model_files.hub_errors import describe_error, explain_hub_errors
from mistral_api.model_files.known_models import DamagedFile, ModelSource, PullError


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


_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub. ``source`` is pinned to a commit; ``sha256`` is None where the server does not say it."""

    source: ModelSource
    size: int
    etag: str

    @property
    def sha256(self) -> str | None:
        """For large files the hub's ETag (``X-Linked-Etag``) is the SHA-256 of their content."""
        return self.etag if _SHA256.fullmatch(self.etag) else None


@dataclass(frozen=True, slots=True)
class FileBody:
    """The bytes of a file from ``start`` on, which is 0 where the server did not heed the place asked for."""

    start: int
    pieces: Iterator[bytes]


class Hub:
    """The hub at an address; by default at HF_ENDPOINT or https://huggingface.co. Close it after use.

    Import this module after :func:`mistral_api.models.environment.prepare_environment`.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        """Raises PullError for an address, a token or a proxy that cannot be used."""
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        require_usable(self._endpoint)

    @property
    def host(self) -> str:
        """The address in words, without a password that may be in it."""
        return urlsplit(self._endpoint).netloc.rpartition("@")[2]

    def find_file(self, source: ModelSource) -> RemoteFile:
        """Size, checksum and commit of a file. Raises PullError."""
        with explain_hub_errors(self.host, source):
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            found = get_hf_file_metadata(self._url(source), timeout=timeout, endpoint=self._endpoint)
        if found.commit_hash is None or found.etag is None or found.size is None:
            raise self._no_hub()
        return RemoteFile(source.with_revision(found.commit_hash), found.size, found.etag)

    def list_gguf_files(self, source: ModelSource) -> list[str]:
        """The names of the GGUF files in the repository. Raises PullError."""
        address = f"{self._endpoint}/api/models/{source.repo}/revision/{quote(source.revision, safe='')}"
        with explain_hub_errors(self.host, source):
            answer = get_session().get(address, headers=build_hf_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT)
            hf_raise_for_status(answer)
        try:
            names = [entry["rfilename"] for entry in answer.json()["siblings"]]
        except (ValueError, KeyError, TypeError) as error:
            raise self._no_hub() from error
        return sorted(name for name in names if name.endswith(".gguf"))

    @contextlib.contextmanager
    def open_body(self, remote: RemoteFile, start: int) -> Iterator[FileBody]:
        """Ask for the bytes from ``start`` on. Raises httpx2.HTTPError; no wait is longer than the deadline.

        The address on the hub is asked each time, not the storage it once pointed to: those addresses expire.
        """
        headers = build_hf_headers() | {"accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", self._url(remote.source), headers=headers, timeout=timeout) as answer:
            hf_raise_for_status(answer)
            yield FileBody(_start(answer, start, remote.size), answer.iter_bytes())

    def close(self) -> None:
        """Close its connections."""
        close_session()

    def _no_hub(self) -> PullError:
        return PullError(f"{self.host} does not answer as a Hugging Face Hub does; check HF_ENDPOINT and the proxy.")

    def _url(self, source: ModelSource) -> str:
        return hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=self._endpoint)


def _start(answer: httpx2.Response, asked: int, size: int) -> int:
    """Where the bytes of an answer begin in the file (RFC 9110, sections 14.4 and 15.3.7).

    A whole file must be of the file's size, lest a proxy's page take the place of what has come already.
    """
    if answer.status_code != 206:
        if asked and answer.headers.get("content-length", str(size)) != str(size):
            raise httpx2.RemoteProtocolError("the server sent something else than the file")
        return 0
    if not answer.headers.get("content-range", "").startswith(f"bytes {asked}-"):
        raise httpx2.RemoteProtocolError("the server sent another part of the file than was asked for")
    return asked


# Seconds before each attempt that follows one without a single new byte; after the last of them it is given up.
PAUSES = (1.0, 2.0, 4.0)


class Download:
    """One file on its way into ``path``, which holds its first bytes already where it exists.

    ``received`` is told how many bytes the file has, whenever that changes.
    """

    def __init__(self, hub: Hub, remote: RemoteFile, path: Path, received: Callable[[int], None]) -> None:
        self._hub = hub
        self._remote = remote
        self._path = path
        self._received = received

    def run(self) -> None:
        """Until all bytes are there. Raises PullError, and OSError of the disk; what has come stays for the next."""
        fruitless = 0
        with self._path.open("ab") as file:
            while (before := file.tell()) != self._remote.size:
                error = self._attempt(file, before)
                fruitless = 0 if file.tell() > before else fruitless + 1
                if error is not None and file.tell() != self._remote.size:
                    self._pause(error, fruitless)

    def _attempt(self, file: BinaryIO, start: int) -> Exception | None:
        """Write what comes from ``start`` on; answers why it ended too early, where that may pass."""
        try:
            with self._hub.open_body(self._remote, start) as body:
                if body.start < start:
                    file.truncate(body.start)
                self._write(file, body.pieces)
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise self._given_up(error) from error
            return error
        except httpx2.TransportError as error:
            return error
        except httpx2.HTTPError as error:
            raise self._given_up(error) from error
        finally:
            file.seek(0, 2)
        return None if file.tell() == self._remote.size else httpx2.RemoteProtocolError("the answer was too short")

    def _write(self, file: BinaryIO, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            file.write(piece)
            have = file.tell()
            if have > self._remote.size:
                file.truncate(0)
                raise DamagedFile(f"{self._hub.host} sent more bytes of {self._remote.source.name} than it announced.")
            self._received(have)

    def _pause(self, error: Exception, fruitless: int) -> None:
        if fruitless > len(PAUSES):
            raise self._given_up(error) from error
        time.sleep(PAUSES[max(fruitless, 1) - 1])

    def _given_up(self, error: Exception) -> PullError:
        return PullError(describe_error(error, self._hub.host, self._remote.source))
