"""The responses to requests that the application never sees: malformed, too large, too slow, or too many."""

from __future__ import annotations

import logging
from http import HTTPStatus

import orjson
from waitress.task import ErrorTask

from mistral_api.errors import ApiError, Unavailable, error_headers, internal_error, refused_request
from mistral_api.generation.error_shapes import error_body
from mistral_api.system.identifiers import new_id

log = logging.getLogger(__name__)

# What waitress says of these names its own settings.
_REASONS = {HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The headers of the request are too large."}
RETRY_SECONDS = 5.0


class RefusalTask(ErrorTask):  # type: ignore[misc] # waitress has no type hints
    """Responds with our error body to a request with an ``error``: an ApiError, or one of waitress's."""

    failed = False

    def execute(self) -> None:
        """Write the response and close the connection: where its next request would begin is unknown."""
        error = _error_of(self.request.error)
        shown_id = str(new_id())
        whole = error_body(error, self.request.asked_path, shown_id)
        body = b"" if self.request.command == "HEAD" else orjson.dumps(whole)
        headers = error_headers(error) | {"Content-Type": "application/json", "X-Request-Id": shown_id}
        self.channel.refused = True
        self.status = f"{error.status} {HTTPStatus(error.status).phrase}"
        self.response_headers += headers.items()
        self.content_length = len(body)
        self.set_close_on_finish()
        log.debug("refused %d for %s: %s %s", error.status, self.channel.addr[0], error.message, shown_id)
        self.write(body)
        self.channel.server.note_refusal(error, self.request, shown_id)


def _error_of(error: object) -> ApiError:
    """Return the failure as ours. What else than 500 waitress has is the client's fault."""
    if isinstance(error, ApiError):
        return error
    status, reason = getattr(error, "code", 500), str(getattr(error, "body", ""))
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error()
    return refused_request(status, _REASONS.get(HTTPStatus(status), reason[:200]))


def overloaded() -> ApiError:
    """Return a 503: too much is going on already."""
    return Unavailable("The server has too many requests already.", code="overloaded", retry_after=RETRY_SECONDS)


def too_many_connections() -> ApiError:
    """Return a 429: this address has too many connections already."""
    error = refused_request(HTTPStatus.TOO_MANY_REQUESTS, "Your address has too many open connections.")
    error.code, error.retry_after = "too_many_connections", RETRY_SECONDS
    return error
