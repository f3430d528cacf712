"""The makers' index of wheels, one folder for each variant, and the wheel in it for this machine.

The index speaks PyPI's "simple" protocol (Python Packaging User Guide, "Simple repository API"), as HTML or JSON. It
states hashes or it does not: xllamacpp's own page only links to the files of its releases on GitHub. GitHub says the
SHA-256 of each of those (its REST API, "Releases": ``digest`` of an asset), and is asked for it then. A wheel whose
hash nobody states is refused, since it is a program.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import httpx2
import orjson
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from mistral_api.downloads.continued_download import BrokenOff, FileBody
from mistral_api.downloads.errors import DownloadError
from mistral_api.engine_builds.index_client import IndexClient, host_of
from mistral_api.engine_builds.variants import PACKAGE

GITHUB_API = "https://api.github.com"
_JSON, _HTML = "application/vnd.pypi.simple.v1+json", "text/html"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WHEEL = re.compile(r"[\w.+-]+\.whl", re.ASCII)
_RELEASE = re.compile(r"/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)/releases/download/(?P<tag>[^/]+)/[^/]+")


class IndexAway(DownloadError):
    """The index does not answer, for any variant. The message says why."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on a server, and the client that asks it."""

    client: IndexClient
    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return _file_name(self.url)

    @property
    def host(self) -> str:
        """The host that has it."""
        return host_of(self.url)

    @property
    def identity(self) -> str:
        """What tells its content from any other."""
        return self.sha256

    def open_body(self, start: int) -> AbstractContextManager[FileBody]:
        """Request the bytes from ``start`` on. Raises BrokenOff and DownloadError; each wait has a deadline."""
        return _open_body(self, start)


@dataclass(frozen=True, slots=True)
class _Link:
    """A file in the index: where it is, and the SHA-256 that the index states."""

    url: str
    sha256: str | None


class WheelIndex:
    """An index at a URL; the variants are folders in it."""

    def __init__(self, url: str) -> None:
        self._client = IndexClient(url)

    @property
    def host(self) -> str:
        """Its host, for messages."""
        return self._client.host

    @property
    def is_unprotected(self) -> bool:
        """Whether it is asked over a network without TLS."""
        return self._client.is_unprotected

    def find(self, variant: str, version: str) -> Wheel:
        """Return the wheel of one version that this Python can install. Raises DownloadError, such as IndexAway."""
        try:
            return self._find(variant, version)
        except BrokenOff as error:
            raise IndexAway(str(error)) from error

    def _find(self, variant: str, version: str) -> Wheel:
        link = _best(self._links(f"{self._client.url}/{variant}/{PACKAGE}/"), version)
        if link is None:
            raise DownloadError(f"{self.host} has no {PACKAGE} {version} ({variant}) for this system and Python.")
        sha256 = link.sha256 or self._digest_of_release(link.url)
        if sha256 is None:
            raise DownloadError(f"Nobody states the SHA-256 of {_file_name(link.url)}, so it is not installed.")
        return Wheel(self._client, link.url, self._size(link.url), sha256)

    def _links(self, page: str) -> list[_Link]:
        body, kind, base = self._client.page(page, f"{_JSON}, {_HTML};q=0.5")
        if kind == _JSON:
            try:
                files = orjson.loads(body)["files"]
                return [
                    _Link(urljoin(base, each["url"]), _sha256(each.get("hashes", {}).get("sha256"))) for each in files
                ]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DownloadError(f"{self.host} does not answer as an index of packages does.") from error
        parser = _Anchors()
        parser.feed(body.decode(errors="replace"))
        return [_link(urljoin(base, target)) for target in parser.targets]

    def _digest_of_release(self, url: str) -> str | None:
        """Return the SHA-256 that GitHub states for a file of a release; None where it states none."""
        parts = urlsplit(url)
        release = _RELEASE.fullmatch(parts.path)
        if parts.hostname != "github.com" or release is None:
            return None
        address = f"{GITHUB_API}/repos/{release['owner']}/{release['name']}/releases/tags/{release['tag']}"
        body, _, _ = self._client.page(address, "application/vnd.github+json")
        try:
            digests = {each["name"]: each["digest"] or "" for each in orjson.loads(body)["assets"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DownloadError(f"{host_of(GITHUB_API)} does not answer as GitHub's API does.") from error
        return _sha256(str(digests.get(_file_name(url), "")).removeprefix("sha256:"))

    def _size(self, url: str) -> int:
        with self._client.answer("HEAD", url) as response:
            length = response.headers.get("content-length", "")
        if not length.isdigit() or int(length) == 0:
            raise DownloadError(f"{host_of(url)} does not say how large {_file_name(url)} is.")
        return int(length)


class _Anchors(HTMLParser):
    """The targets of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in the beginning of an element."""
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.targets.append(target)


def _link(url: str) -> _Link:
    address, fragment = urldefrag(url)
    name, _, value = fragment.partition("=")
    return _Link(address, _sha256(value) if name == "sha256" else None)


def _sha256(stated: object) -> str | None:
    """Return a hash that is stated; None for what is none."""
    text = str(stated).lower()
    return text if _SHA256.fullmatch(text) else None


def _best(links: list[_Link], version: str) -> _Link | None:
    """Return the wheel of a version that suits this Python best."""
    ranks = {tag: rank for rank, tag in enumerate(sys_tags())}
    found = []
    for link in links:
        with contextlib.suppress(InvalidWheelFilename):  # pages have other links too
            name, of_file, _, tags = parse_wheel_filename(_file_name(link.url))  # it lets any character pass
            usable = [ranks[tag] for tag in tags if tag in ranks]
            if (
                _WHEEL.fullmatch(_file_name(link.url))
                and name == PACKAGE
                and Version(of_file.public) == Version(version)
                and usable
            ):
                found.append((min(usable), link))
    return min(found, key=lambda each: each[0])[1] if found else None


@contextlib.contextmanager
def _open_body(wheel: Wheel, start: int) -> Iterator[FileBody]:
    headers = {"range": f"bytes={start}-"} if start else {}
    with wheel.client.answer("GET", wheel.url, **headers) as response:
        yield FileBody(_body_start(response, start), response.iter_bytes())


def _body_start(response: httpx2.Response, requested: int) -> int:
    """Return where a response's bytes begin in the file (RFC 9110, sections 14.4 and 15.3.7)."""
    if response.status_code != 206:
        return 0
    if not response.headers.get("content-range", "").startswith(f"bytes {requested}-"):
        raise BrokenOff(f"{host_of(str(response.url))} sent another part of the file than was asked for.")
    return requested


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])
