"""A Hugging Face Hub with switches, over real sockets: the hub itself, and the storage that it redirects clients to.

It implements what https://huggingface.co/docs/huggingface_hub describes and the package expects: ``HEAD`` and
``GET /{repo}/resolve/{revision}/{file}`` with ``X-Repo-Commit``, ``X-Linked-Etag`` (for large files the SHA-256) and
``X-Linked-Size`` and a redirect to another host; ``GET /api/models/{repo}/revision/{revision}``; errors by
``X-Error-Code``. ``fault`` chooses how it misbehaves:

==================  ==================================================================
``cut``             the storage closes the connection in the middle of the content, ``cuts`` times
``errors``          the storage responds with status 500, ``cuts`` times
``stall``           the storage sends half of the file, then nothing until ``released``
``silent``          the hub accepts requests and never responds
``wrong-bytes``     the content differs and has the same length
``short-length``    Content-Length is smaller than the announced size
``long-length``     Content-Length is larger than the content
``too-much``        the content is longer than the hub has announced
``ignores-range``   the whole file is sent for any requested range
``page``            a proxy's page is sent with status 200 for any requested range
``other-range``     another range is sent than the requested one
``no-checksum``     the ETag is no SHA-256
``bad-listing``     the list of a repository's files is no JSON
``moved``           the hub redirects to the same repository under ``someone/``
``no-hub``          the response has none of the hub's headers
``huge``            the announced size fits no disk
``gated``           401 with GatedRepo unless the token is ``hf_good``
``unauthorized``    401 for a token that is not accepted
``too-many``        429
==================  ==================================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.http_stub import http_stub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", COMMIT, "refs%2Fpr%2F1")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_LISTING = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)")


@dataclass
class HubRequest:
    """A request as it arrived."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class ModelHub:
    """The hub: ``files`` by ``owner/repository/file``, and the requests to the hub and to its storage.

    ``lies``: headers that it sends with a file in the place of the right ones.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    fault: str = ""
    cuts: int = 1
    lies: dict[str, str] = field(default_factory=dict)
    url: str = ""
    storage_url: str = ""
    hub_requests: list[HubRequest] = field(default_factory=list)
    storage_requests: list[HubRequest] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def ranges(self) -> list[str | None]:
        """Return the Range header of each request for content, in order."""
        return [each.range for each in self.storage_requests]

    def take_cut(self) -> bool:
        """Return whether to misbehave once more."""
        self.cuts -= 1
        return self.cuts >= 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ModelHub

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""

    def hub_request(self) -> HubRequest:
        """Return the request as it arrived."""
        return HubRequest(self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization"))

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a response; underscores in header names become hyphens."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection."""
        self.wfile.flush()
        self.close_connection = True


class _HubHandler(_Handler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.hub_requests.append(self.hub_request())
        if self.hub.fault == "silent":
            self.hub.released.wait(timeout=60)
            self.close_connection = True
        elif self.hub.fault == "no-hub":
            self.answer(200, b"<html>Log in to the hotel's network</html>")
        elif not self._refused():
            self._found()

    def _refused(self) -> bool:
        fault, token = self.hub.fault, self.headers.get("Authorization")
        if fault == "gated" and token != "Bearer hf_good":
            self.answer(401, X_Error_Code="GatedRepo")
        elif fault == "unauthorized":
            self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        elif fault == "too-many":
            self.answer(429)
        elif fault == "moved" and not self.path.startswith("/someone/"):
            self.answer(307, Location="/someone/" + self.path.split("/", 2)[2])
        else:
            return False
        return True

    def _found(self) -> None:
        match = _RESOLVE.fullmatch(self.path) or _LISTING.fullmatch(self.path)
        names = [name for name in self.hub.files if match and name.startswith(match["repo"] + "/")]
        if not match or not names:
            self.answer(401, X_Error_Code="RepoNotFound")
        elif match["revision"] not in REVISIONS:
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif "file" not in match.groupdict():
            siblings = [{"rfilename": name.removeprefix(match["repo"] + "/")} for name in [*names, "x/y/README.md"]]
            listing = "<html>" if self.hub.fault == "bad-listing" else json.dumps({"siblings": siblings})
            self.answer(200, listing.encode())
        else:
            self._resolved(f"{match['repo']}/{match['file']}")

    def _resolved(self, name: str) -> None:
        if name not in self.hub.files:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        content = self.hub.files[name]
        digest = hashlib.sha256(content).hexdigest()
        size = 10**15 if self.hub.fault == "huge" else len(content)
        headers = {
            "X_Repo_Commit": COMMIT,
            "X_Linked_Etag": '"some/tag"' if self.hub.fault == "no-checksum" else f'"{digest}"',
            "X_Linked_Size": str(size),
            "Location": f"{self.hub.storage_url}/{name}?signature=secret",
        }
        self.answer(302, b"", **(headers | self.hub.lies))


class _StorageHandler(_Handler):
    def do_GET(self) -> None:
        request = self.hub_request()
        self.hub.storage_requests.append(request)
        content = self.hub.files[self.path.partition("?")[0].removeprefix("/")]
        start = int(request.range.removeprefix("bytes=").removesuffix("-")) if request.range else 0
        if self.hub.fault == "ignores-range":
            start = 0
        if self.hub.fault == "page":
            self.answer(200, b"<html>Log in to the hotel's network</html>")
            return
        if self.hub.fault == "errors" and self.hub.take_cut():
            self.answer(500)
            return
        self._send(content, start, request.range is not None and self.hub.fault != "ignores-range")

    def _send(self, content: bytes, start: int, partial: bool) -> None:
        body, length = self._body(content, start)
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(length))
        if partial:
            first = 0 if self.hub.fault == "other-range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body[:length])
        if self.hub.fault == "stall":
            self.wfile.flush()
            self.hub.released.wait(timeout=60)
        if len(body) != length:
            self.hang_up()

    def _body(self, content: bytes, start: int) -> tuple[bytes, int]:
        """Return the bytes to send, and their Content-Length."""
        rest = content[start:]
        half = rest[: (len(rest) + 1) // 2]
        fault = self.hub.fault
        if fault in ("cut", "short-length"):
            body = half if self.hub.take_cut() else rest
            return body, len(body) if fault == "short-length" else len(rest)
        bodies = {
            "stall": (content[start : (len(content) + 1) // 2], len(rest)),
            "wrong-bytes": (content[:4] + bytes(len(rest) - 4), len(rest)),
            "long-length": (rest, len(rest) + 10),
            "too-much": (rest + b"more", len(rest) + 4),
        }
        return bodies.get(fault, (rest, len(rest)))


@contextlib.contextmanager
def model_hub(**files: bytes) -> Iterator[ModelHub]:
    """Run the hub and its storage."""
    hub = ModelHub(files)
    with http_stub(_HubHandler, hub=hub) as hub.url, http_stub(_StorageHandler, hub=hub) as hub.storage_url:
        try:
            yield hub
        finally:
            hub.released.set()
