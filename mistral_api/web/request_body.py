"""The body of the current request: as it came, or decompressed where its client has compressed it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from flask import request

from mistral_api.event_loop.wsgi import ON_DISCONNECT
from mistral_api.wire.body_bounds import load_body

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def json_body(*, optional: bool = False) -> object:
    """Return the decoded JSON body, whatever its declared content type; ``optional``: an empty one is ``{}``.

    Raises InvalidRequest, Flask's 413, and Unavailable (``overloaded``).
    """
    load, codings = partial(_load, optional=optional), request.environ.get("HTTP_CONTENT_ENCODING")
    if not codings:
        return load(_received())
    from mistral_api.web.compressed_body import load_compressed  # noqa: PLC0415 - brings brotli and zstd

    return load_compressed(codings, load)


def _received() -> bytes:
    """Return the body as it came. Our web server has received all of it, within the bound that Flask would look at."""
    environ: WSGIEnvironment = request.environ
    received: bytes = environ["wsgi.input"].read() if ON_DISCONNECT in environ else request.get_data(cache=False)
    return received


def _load(content: bytes, *, optional: bool) -> Any:
    return {} if optional and not content else load_body(content)
