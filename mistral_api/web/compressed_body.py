"""The body of the current request, where its client has compressed it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flask import current_app, request

from mistral_api.errors import Unavailable
from mistral_api.wire.content_coding import PIECE_BYTES, content_codings, decoded_pieces

# So many bodies are decompressed and decoded at a time that become larger than SMALL_BYTES. A body that is not
# compressed has to arrive in full length, and is counted among those that the web server holds; these are not.
MOST_LARGE = 4
SMALL_BYTES = 1 << 20
WAIT_SECONDS = 10.0

_large = threading.BoundedSemaphore(MOST_LARGE)


def load_compressed(header: str, load: Callable[[bytes], Any]) -> Any:
    """Return what ``load`` makes of the body without its codings. ``header``: those it has (``Content-Encoding``).

    Raises InvalidRequest, Flask's 413, and Unavailable (``overloaded``).
    """
    codings = content_codings(header)
    if not codings:
        return load(request.get_data(cache=False))
    most: int = current_app.config["MAX_CONTENT_LENGTH"]
    return _load_pieces(decoded_pieces(_received_pieces(), codings, most), load)


def _received_pieces() -> Iterator[bytes]:
    """Yield the body as it came. It is not held as a whole beside what becomes of it."""
    return iter(lambda: request.stream.read(PIECE_BYTES), b"")


def _load_pieces(pieces: Iterator[bytes], load: Callable[[bytes], Any]) -> Any:
    """Return what is made of a decompressed body. Raises as :func:`load_compressed` does."""
    content, waited = io.BytesIO(), False
    try:
        for piece in pieces:
            content.write(piece)
            if not waited and content.tell() > SMALL_BYTES:
                if not _large.acquire(timeout=WAIT_SECONDS):
                    text = "The server decompresses too many requests already."
                    raise Unavailable(text, code="overloaded", retry_after=WAIT_SECONDS / 2)
                waited = True
        return load(content.getvalue())
    finally:
        if waited:
            _large.release()
