"""The Hugging Face Hub, or a mirror of it in HF_ENDPOINT: what it has, and its bytes from any place on.

``huggingface_hub`` knows the addresses, the token (HF_TOKEN, or that of ``hf auth login``), proxies, the headers of
the hub's answers and the meaning of its errors. It compares no checksum and, since its 1.x, deletes what an interrupted
download had got; hence only single requests are made through it, and :mod:`mistral_api.models.transfer` does the rest.
Its Xet protocol is not used: over plain HTTP a mirror works too and an interrupted file can go on.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import httpx2
from huggingface_hub import close_session, constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from mistral_api.models.errors import PullError
from mistral_api.models.failures import explain_errors
from mistral_api.models.requirements import require_usable
from mistral_api.models.sources import Source

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub. ``source`` is pinned to a commit; ``sha256`` is None where the server does not say it."""

    source: Source
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

    def look_up(self, source: Source) -> RemoteFile:
        """Size, checksum and commit of a file. Raises PullError."""
        with explain_errors(self.host, source):
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            found = get_hf_file_metadata(self._url(source), timeout=timeout, endpoint=self._endpoint)
        if found.commit_hash is None or found.etag is None or found.size is None:
            raise self._no_hub()
        return RemoteFile(source.at(found.commit_hash), found.size, found.etag)

    def files_in(self, source: Source) -> list[str]:
        """The names of the GGUF files in the repository. Raises PullError."""
        address = f"{self._endpoint}/api/models/{source.repo}/revision/{quote(source.revision, safe='')}"
        with explain_errors(self.host, source):
            answer = get_session().get(address, headers=build_hf_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT)
            hf_raise_for_status(answer)
        try:
            names = [entry["rfilename"] for entry in answer.json()["siblings"]]
        except (ValueError, KeyError, TypeError) as error:
            raise self._no_hub() from error
        return sorted(name for name in names if name.endswith(".gguf"))

    @contextlib.contextmanager
    def opened(self, remote: RemoteFile, start: int) -> Iterator[FileBody]:
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

    def _url(self, source: Source) -> str:
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
