"""Our exceptions, each with its status, headers and body as plain data.

The tree::

    ApiError                    any failure with an HTTP answer
    ├── InvalidRequest          400, the caller's fault; names the field
    │   └── MalformedRequest    400, no HTTP, no JSON, or beyond the bounds of any request
    ├── Unauthorized            401
    ├── Forbidden               403
    ├── NotFound                404
    ├── MisdirectedRequest      421, for a host that is not us
    ├── RateLimited             429, of security.rate_limits: the caller has used what they may
    ├── Unavailable             503, ours; worth trying again
    └── ModelServerError        502, the model server's fault
        ├── ModelServerRefused  4xx, the model server refused the request
        ├── ModelServerFailed   502, it reported a failure, or its answer is unusable
        ├── ModelCacheFull      503, its KV cache had no room for all that ran: it has ended them
        ├── ModelServerLost     502, it hung up before it had answered anything
        ├── ModelTimeout        504
        └── ModelUnavailable    503, loading, restarting or given up
            ├── ModelLoading    503
            └── ModelUnusable   503, as things are: waiting would not help

``upstream.errors`` translates those of ``upstream.connection_errors`` into this tree, ``database.errors`` those of
SQLAlchemy. ``web.errors`` turns them into responses. The body is OpenAI's:
``{"error": {"message", "type", "param", "code"}}`` (OpenAPI description, schema ``Error``), and ``X-Error-Source``
names who failed.

StartError has no HTTP answer: it ends a command with one sentence.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TypedDict

import orjson


class ErrorObject(TypedDict):
    """OpenAI's error object (schema ``Error``)."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """The body of every response that is an error."""

    error: ErrorObject


class ApiError(Exception):
    """A failure with an HTTP answer. ``message`` goes to the client unchanged."""

    status: int = 500
    type: str = "server_error"
    source: str = "api"
    default_code: str | None = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after = retry_after
        # Further headers of the response, such as the id of the session that records the failure.
        self.headers: dict[str, str] = {}

    def body(self) -> ErrorBody:
        """The OpenAI error object, all four keys present."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(ApiError):
    """400: the request is wrong; ``param`` is the path of the field, as in ``messages[0].role``."""

    status = 400
    type = "invalid_request_error"
    default_code: str | None = None


class MalformedRequest(InvalidRequest):
    """400: the request cannot be read, or is beyond the bounds of any request."""


class Unauthorized(InvalidRequest):
    """401: no key, or not one of ours."""

    status = 401
    default_code = "invalid_api_key"


class Forbidden(InvalidRequest):
    """403: the caller may not do this."""

    status = 403
    default_code = "insufficient_scope"


class NotFound(InvalidRequest):
    """404: no such thing, or not the caller's."""

    status = 404
    default_code = "not_found"


class MisdirectedRequest(InvalidRequest):
    """421: the request is for a host that this server does not answer to (RFC 9110, section 15.5.20)."""

    status = 421
    default_code = "host_not_allowed"


class Unavailable(ApiError):
    """503: we cannot answer now; the client may try again."""

    status = 503
    default_code = "overloaded"

    def __init__(self, message: str, *, code: str, retry_after: float = 1) -> None:
        super().__init__(message, code=code, retry_after=retry_after)


class ModelServerError(ApiError):
    """502: the model server broke off or answered nonsense."""

    status = 502
    source = "model-server"
    default_code: str | None = "model_server_error"


class ModelServerRefused(ModelServerError):
    """A 4xx of the model server: the request is wrong in a way that only it could see."""

    status = 400
    type = "invalid_request_error"
    default_code: str | None = None


class ModelCacheFull(ModelServerError):
    """503: the KV cache had no room for all that ran, and the model server has ended them. It is worth trying again."""

    status = 503
    default_code = "context_full"


class ModelServerFailed(ModelServerError):
    """502: the model server runs, and fails: its own 5xx, an error event, or an unusable answer.

    ``summary`` is its error message, cut off before anything that may quote a prompt.
    """

    def __init__(self, message: str, *, code: str | None = None, summary: str = "it gave no reason") -> None:
        super().__init__(message, code=code)
        self.summary = summary


class ModelServerLost(ModelServerError):
    """502: the model server closed the connection before it had answered anything, so the request can be repeated."""


class ModelTimeout(ModelServerError):
    """504: the model server kept silent past its deadline."""

    status = 504
    default_code = "model_timeout"


class ModelUnavailable(ModelServerError):
    """503: no model server answers, or it has been given up."""

    status = 503
    default_code = "model_unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after: float = 5) -> None:
        super().__init__(message, code=code, retry_after=retry_after)


class ModelLoading(ModelUnavailable):
    """503: the model is being loaded."""

    default_code = "model_loading"


class ModelUnusable(ModelUnavailable):
    """503: the model server that somebody else runs cannot be used as things are: its name, its key, TLS, its URL."""


def error_headers(error: ApiError) -> dict[str, str]:
    """The headers of the HTTP response to a failure, besides its content type."""
    headers = {"X-Error-Source": error.source, **error.headers}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 11.6.1
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return headers


def error_event(error: ApiError) -> bytes:
    """The failure as one server-sent event, for a stream that has already begun."""
    return b"data: " + orjson.dumps(error.body()) + b"\n\n"


def internal_error() -> ApiError:
    """The answer to an unexpected failure: no detail of it reaches the client."""
    return ApiError("The server failed to answer this request; its log has the details under the request id.")


# The statuses of requests that are no HTTP as this server speaks it, or that arrive too slowly.
_MALFORMED = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.EXPECTATION_FAILED,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    )
)


def refused_request(status: int, reason: str) -> ApiError:
    """A request that never got as far as a view, by its HTTP status; ``reason`` goes to the client."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        failure: ApiError = InvalidRequest("The request body is too large.", code="request_too_large")
    else:
        failure = (MalformedRequest if status in _MALFORMED else InvalidRequest)(reason)
    failure.status = status
    return failure


class StartError(Exception):
    """Something cannot start, and trying again would not help; the message is one sentence for the operator."""
