"""The body of the current request: as it came, or decompressed where its client has compressed it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flask import current_app, request

from mistral_api.errors import Unavailable
from mistral_api.event_loop.wsgi import ON_DISCONNECT
from mistral_api.wire.body_bounds import load_body
from mistral_api.wire.content_coding import PIECE_BYTES, content_codings, decoded_pieces

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# So many bodies are decompressed and decoded at a time that become larger than SMALL_BYTES. A body that is not
# compressed has to arrive in full length, and is counted among those that the web server holds; these are not.
MOST_LARGE = 4
SMALL_BYTES = 1 << 20
WAIT_SECONDS = 10.0

_large = threading.BoundedSemaphore(MOST_LARGE)


def json_body(*, optional: bool = False) -> object:
    """Return the decoded JSON body, whatever its declared content type; ``optional``: an empty one is ``{}``.

    Raises InvalidRequest, Flask's 413, and Unavailable (``overloaded``).
    """
    header: str | None = request.environ.get("HTTP_CONTENT_ENCODING")
    codings = content_codings(header) if header else []
    if not codings:
        return _load(_received(), optional=optional)
    most: int = current_app.config["MAX_CONTENT_LENGTH"]
    return _load_pieces(decoded_pieces(_received_pieces(), codings, most), optional=optional)


def _received() -> bytes:
    """Return the body as it came. Our web server has received all of it, within the bound that Flask would look at."""
    environ: WSGIEnvironment = request.environ
    received: bytes = environ["wsgi.input"].read() if ON_DISCONNECT in environ else request.get_data(cache=False)
    return received


def _load(content: bytes, *, optional: bool) -> Any:
    return {} if optional and not content else load_body(content)


def _received_pieces() -> Iterator[bytes]:
    """Yield the body as it came. It is not held as a whole beside what becomes of it."""
    return iter(lambda: request.stream.read(PIECE_BYTES), b"")


def _load_pieces(pieces: Iterator[bytes], *, optional: bool) -> Any:
    """Return the JSON of a decompressed body. Raises as :func:`json_body` does."""
    content, waited = io.BytesIO(), False
    try:
        for piece in pieces:
            content.write(piece)
            if not waited and content.tell() > SMALL_BYTES:
                if not _large.acquire(timeout=WAIT_SECONDS):
                    text = "The server decompresses too many requests already."
                    raise Unavailable(text, code="overloaded", retry_after=WAIT_SECONDS / 2)
                waited = True
        return _load(content.getvalue(), optional=optional)
    finally:
        if waited:
            _large.release()
