"""The head of a request, checked more strictly than waitress does before waitress parses it.

What two parsers may read differently is refused (RFC 9112, sections 2.2, 3.2, 5 and 6; RFC 9110, section 10.1.1): the
proxy before us must not see another request than we do. Each refusal is an InvalidRequest whose message says what is
wrong and repeats nothing that was sent. :func:`check_head` returns the head in the one form that waitress reads in a
time that grows with its length: waitress's expression for a header needs the square of the length of a run of spaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from mistral_api.errors import ApiError, refused_request
from mistral_api.serving.connection_limits import ConnectionLimits

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHOD = re.compile(rb"[A-Z][A-Z_-]{0,31}")
_VERSION = re.compile(rb"HTTP/[0-9](?:\.[0-9])?")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_IN_TARGET = re.compile(rb"[^!-~]|#")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"[^\x00-\x20\x7f-\xff,/?#@\\]*")
_DIGITS = re.compile(rb"[0-9]+")
# Of these a request has one at most. Two would be joined by waitress, and read in two ways by two parsers.
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
# More digits than any length that is allowed.
_LENGTH_DIGITS = 15


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request whose body has not been read yet. The names of headers are in lower case; ``path`` is decoded."""

    method: str
    path: str
    headers: Mapping[str, str]
    address: str


def malformed(reason: str) -> ApiError:
    """Return a 400 for a request that is not HTTP as we speak it."""
    return refused_request(HTTPStatus.BAD_REQUEST, reason)


def check_beginning(head: bytes, limits: ConnectionLimits) -> None:
    """Refuse the beginning of a head as soon as no rest could make it right. Raises InvalidRequest.

    Whoever speaks another protocol (TLS, HTTP/2, HTTP/0.9) would otherwise wait for an answer until the deadline.
    """
    begun = head.lstrip(b"\r\n")
    if begun and not b"A" <= begun[:1] <= b"Z":
        tls = begun[:1] == b"\x16"
        reason = "This port speaks HTTP, not HTTPS." if tls else "The request does not begin with a method of HTTP."
        raise malformed(reason)
    if _BARE_LF.search(head):
        raise malformed("A line of the request ends without a carriage return.")
    line, end, _ = begun.partition(b"\r\n")
    if len(line) > limits.request_line_bytes:
        raise refused_request(HTTPStatus.REQUEST_URI_TOO_LONG, "The URL is too long.")
    if end:
        _check_request_line(line)


def check_head(head: bytes, limits: ConnectionLimits) -> bytes:
    """Return the head of a request, without its closing empty line, in the form that waitress shall parse.

    Raises InvalidRequest. Headers with an underscore in their name are left out, as waitress does: in the environment
    of WSGI they could not be told from those with a hyphen.
    """
    line, *fields = head.rstrip(b"\r\n").split(b"\r\n")
    method, target, version = _check_request_line(line)
    headers = _check_fields(fields, limits)
    single = {name.lower(): value for name, value in headers}
    _check_host(single.get(b"host"), version)
    _check_framing(single, version, limits)
    if version == b"HTTP/1.0":  # expectations are HTTP/1.1's
        headers = [(name, value) for name, value in headers if name.lower() != b"expect"]
    elif single.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise refused_request(HTTPStatus.EXPECTATION_FAILED, "The only expectation that is met is 100-continue.")
    target = _origin_form(method, target, single.get(b"host", b""))
    lines = [b" ".join((method, target, version)), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n"


def _check_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Return method, target and version. Raises InvalidRequest."""
    method, _, rest = line.partition(b" ")
    target, _, version = rest.partition(b" ")
    if not _METHOD.fullmatch(method) or not target:
        raise malformed("The first line of the request is not a method, a URL and a version of HTTP.")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        known = version and not _VERSION.fullmatch(version)
        reason = "The first line of the request is not a method, a URL and a version of HTTP."
        raise malformed(reason if known else "This server speaks HTTP/1.1 and HTTP/1.0.")
    if method == b"CONNECT":
        raise refused_request(HTTPStatus.METHOD_NOT_ALLOWED, "This server is no proxy.")
    return method, target, version


def _check_fields(lines: list[bytes], limits: ConnectionLimits) -> list[tuple[bytes, bytes]]:
    """Return the names and values of the headers. Raises InvalidRequest."""
    if len(lines) > limits.header_count:
        raise refused_request(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many headers.")
    headers, seen = [], set()
    for line in lines:
        name, value = _check_field(line)
        plain = name.lower().replace(b"_", b"-")
        if plain in _SINGLE and (plain in seen or b"_" in name):
            raise malformed(f"The request has more than one header '{plain.decode().title()}', or misspells it.")
        seen.add(plain)
        if b"_" not in name:
            headers.append((name, value))
    return headers


def _check_field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise malformed("A header of the request has no name, or one with a space or another character not allowed.")
    if _CONTROL.search(value):
        raise malformed("A header of the request contains a control character.")
    return name, value.strip(b" \t")


def _check_host(host: bytes | None, version: bytes) -> None:
    if host is None and version == b"HTTP/1.1":
        raise malformed("The request has no header 'Host'.")
    if host is not None and not _HOST.fullmatch(host):
        raise malformed("The header 'Host' is no host name or address.")


def _check_framing(headers: Mapping[bytes, bytes], version: bytes, limits: ConnectionLimits) -> None:
    """Refuse a body whose end is not clear beyond doubt, or that is too large. Raises InvalidRequest."""
    length, encoding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if encoding is not None:
        if length is not None:
            raise malformed("The request has both a 'Content-Length' and a 'Transfer-Encoding'.")
        if version == b"HTTP/1.0" or encoding.lower() != b"chunked":
            raise malformed("The only 'Transfer-Encoding' that is understood is 'chunked', in HTTP/1.1.")
    if length is not None:
        if not _DIGITS.fullmatch(length):
            raise malformed("The 'Content-Length' is no number.")
        digits = length.lstrip(b"0")
        if len(digits) > _LENGTH_DIGITS or int(digits or b"0") > limits.body_bytes:
            raise too_large()


def too_large() -> ApiError:
    """Return a 413: the body is larger than MAX_REQUEST_BYTES."""
    return refused_request(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "")


def _origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    """Return the target as path and query. Raises InvalidRequest.

    The URL of an absolute target must name the host of the header: a check of the one must hold for the other.
    """
    if target == b"*" and method == b"OPTIONS":
        return b"/"
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        if absolute[1].lower() != host.lower():
            raise malformed("The URL of the request names another host than its header 'Host'.")
        target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    if not target.startswith(b"/") or _NOT_IN_TARGET.search(target):
        raise malformed("The URL of the request is no path, or has characters that must be percent-encoded.")
    if b"\0" in unquote_to_bytes(target.partition(b"?")[0]):
        raise malformed("The URL of the request contains a NUL character.")
    return target
