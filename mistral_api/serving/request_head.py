"""The head of a request, parsed more strictly than waitress does.

What two parsers may read differently is refused (RFC 9112, sections 2.2, 3.2, 5 and 6; RFC 9110, section 10.1.1): the
proxy before us must not see another request than we do. Each refusal is an InvalidRequest whose message says what is
wrong and repeats nothing that was sent. Headers with an underscore in their name are left out, as waitress does: in the
environment of WSGI they could not be told from those with a hyphen.

Waitress's own parser needs the square of the length of a run of spaces in a header: 64 KB of them took half a minute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from mistral_api.errors import ApiError, refused_request
from mistral_api.serving.connection_limits import ConnectionLimits

# Names are tokens, values have no control character but the tab. No two parts of it match the same bytes.
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
_METHOD = re.compile(rb"[A-Z][A-Z_-]{0,31}")
_VERSION = re.compile(rb"HTTP/[0-9](?:\.[0-9])?")
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
class ParsedHead:
    """What the head of a request says. ``headers`` are named as waitress does: ``CONTENT_TYPE``.

    ``path`` is not decoded; ``length`` is that of a body that does not come in chunks.
    """

    method: str
    path: str
    query: str
    version: str
    headers: dict[str, str]
    length: int
    chunked: bool
    expects_continue: bool


def malformed(reason: str) -> ApiError:
    """Return a 400 for a request that is not HTTP as we speak it."""
    return refused_request(HTTPStatus.BAD_REQUEST, reason)


def check_first_byte(head: bytes) -> None:
    """Refuse what begins with no method, after the empty line that may come before one. Raises InvalidRequest."""
    begun = head[2:] if head.startswith(b"\r\n") else head
    if begun in (b"", b"\r") or begun.startswith(b"\r\n") or b"A" <= begun[:1] <= b"Z":
        return
    tls = begun[:1] == b"\x16"
    raise malformed("This port speaks HTTP, not HTTPS." if tls else "The request does not begin with a method of HTTP.")


def check_beginning(head: bytes, limits: ConnectionLimits) -> None:
    """Refuse the beginning of a head as soon as no rest could make it right. Raises InvalidRequest.

    Whoever speaks another protocol (HTTP/2, HTTP/0.9) would otherwise wait for an answer until the deadline.
    """
    begun = head.lstrip(b"\r\n")
    if _BARE_LF.search(head):
        raise malformed("A line of the request ends without a carriage return.")
    line, end, _ = begun.partition(b"\r\n")
    if end or len(line) > limits.request_line_bytes:
        _check_request_line(line, limits)


def parse_head(head: bytes, limits: ConnectionLimits) -> ParsedHead:
    """Return what the head of a request says, which ends with an empty line. Raises InvalidRequest."""
    line, _, block = head.rstrip(b"\r\n").partition(b"\r\n")
    method, target, version = _check_request_line(line, limits)
    headers, single = _parse_fields(block, limits)
    _check_host(single.get(b"host"), version)
    length = _check_framing(single, version, limits)
    expects = version == b"HTTP/1.1" and b"expect" in single
    if expects and single[b"expect"].lower() != b"100-continue":
        raise refused_request(HTTPStatus.EXPECTATION_FAILED, "The only expectation that is met is 100-continue.")
    path, _, query = _origin_form(method, target, single.get(b"host", b"")).decode().partition("?")
    chunked = headers.pop("TRANSFER_ENCODING", None) is not None
    return ParsedHead(method.decode(), path, query, version[5:].decode(), headers, length, chunked, expects)


def _check_request_line(line: bytes, limits: ConnectionLimits) -> tuple[bytes, bytes, bytes]:
    """Return method, target and version. Raises InvalidRequest."""
    if len(line) > limits.request_line_bytes:
        raise refused_request(HTTPStatus.REQUEST_URI_TOO_LONG, "The URL is too long.")
    method, _, rest = line.partition(b" ")
    target, _, version = rest.partition(b" ")
    if not _METHOD.fullmatch(method) or not target or (version and not _VERSION.fullmatch(version)):
        raise malformed("The first line of the request is not a method, a URL and a version of HTTP.")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise malformed("This server speaks HTTP/1.1 and HTTP/1.0.")
    if method == b"CONNECT":
        raise refused_request(HTTPStatus.METHOD_NOT_ALLOWED, "This server is no proxy.")
    return method, target, version


def _parse_fields(block: bytes, limits: ConnectionLimits) -> tuple[dict[str, str], dict[bytes, bytes]]:
    """Return all headers in the form of waitress, and by their names in lower case those that decide what follows."""
    lines = block.split(b"\r\n") if block else []
    if len(lines) > limits.header_count:
        raise refused_request(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many headers.")
    if not _FIELDS.fullmatch(block + b"\r\n" if block else b""):
        raise malformed("A header has a control character, or a name that is empty or has a character not allowed.")
    headers: dict[str, str] = {}
    single: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if b"_" in name:
            _check_dropped(name)
            continue
        if name in _SINGLE:
            if name in single:
                raise malformed(f"The request has more than one header '{name.decode().title()}'.")
            single[name] = value
        key, text = name.decode().upper().replace("-", "_"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers, single


def _check_dropped(name: bytes) -> None:
    """Refuse a header that is dropped for its underscore where another program may take it for one that decides."""
    if name.replace(b"_", b"-") in _SINGLE:
        raise malformed("A header that says where the request ends, or for whom it is, is spelled with an underscore.")


def _check_host(host: bytes | None, version: bytes) -> None:
    if host is None and version == b"HTTP/1.1":
        raise malformed("The request has no header 'Host'.")
    if host is not None and not _HOST.fullmatch(host):
        raise malformed("The header 'Host' is no host name or address.")


def _check_framing(headers: Mapping[bytes, bytes], version: bytes, limits: ConnectionLimits) -> int:
    """Return the length of the body, 0 where it comes in chunks.

    Raises InvalidRequest for one whose end is not clear beyond doubt, or that is too large.
    """
    length, encoding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if encoding is not None:
        if length is not None:
            raise malformed("The request has both a 'Content-Length' and a 'Transfer-Encoding'.")
        if version == b"HTTP/1.0" or encoding.lower() != b"chunked":
            raise malformed("The only 'Transfer-Encoding' that is understood is 'chunked', in HTTP/1.1.")
    if length is None:
        return 0
    if not _DIGITS.fullmatch(length):
        raise malformed("The 'Content-Length' is no number.")
    digits = length.lstrip(b"0")
    if len(digits) > _LENGTH_DIGITS or int(digits or b"0") > limits.body_bytes:
        raise too_large()
    return int(digits or b"0")


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
