"""The request id: taken from ``X-Request-Id`` or made, answered on every response, written to the log."""

from __future__ import annotations

import logging
import re
import time
from uuid import UUID

from flask import Flask, Response, g, request

from mistral_api.identifiers import new_id

access_log = logging.getLogger("mistral_api.access")

_ACCEPTABLE = re.compile(r"[!-~]{1,128}")


def request_id() -> UUID:
    """Our own id of the current request; it names the usage row."""
    made: UUID = g.request_id
    return made


def client_request_id() -> str | None:
    """The id that the client gave the current request, if it gave an acceptable one."""
    given: str | None = g.client_request_id
    return given


def shown_request_id() -> str:
    """The id of the current request as its client sees it."""
    return client_request_id() or str(request_id())


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = new_id()
    g.client_request_id = given if _ACCEPTABLE.fullmatch(given) else None
    g.began = time.monotonic()


def _end(response: Response) -> Response:
    shown = shown_request_id()
    response.headers["X-Request-Id"] = shown
    if access_log.isEnabledFor(logging.INFO):
        spent = (time.monotonic() - g.began) * 1000
        # A path may hold a line break, which must not begin a line of the log.
        path = ascii(request.path)[1:-1]
        access_log.info("%s %s %d %.1f ms %s", request.method, path, response.status_code, spent, shown)
    return response


def register_request_ids(app: Flask) -> None:
    """Give every request of the application its id."""
    app.before_request(_begin)
    app.after_request(_end)
