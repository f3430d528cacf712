"""Failures of the model server as our exceptions: those of its connections, and its own error bodies.

llama.cpp's own error types are in its tools/server/README.md and server-common.cpp
(``exceed_context_size_error``, ``unavailable_error`` …); its ``code`` is the HTTP number.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from types import TracebackType

import orjson

from mistral_api.errors import (
    ApiError,
    ModelCacheFull,
    ModelLoading,
    ModelServerError,
    ModelServerFailed,
    ModelServerLost,
    ModelServerRefused,
    ModelTimeout,
    ModelUnavailable,
    ModelUnusable,
    Unavailable,
)
from mistral_api.payload_types import JsonObject
from mistral_api.upstream.connection_errors import ConnectionFailure, HostNotFound, NotConnected, Silence
from mistral_api.upstream.outage import failure_cause, is_tls_failure

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that left before its response


class ClientClosedRequest(ApiError):
    """The client left. Nobody reads this error; it is recorded."""

    status = CLIENT_CLOSED_REQUEST
    default_code = "client_closed_request"


class ContextExceeded(ModelServerRefused):
    """The prompt does not fit: ``used`` tokens, of at most ``limit``; None where the model server did not say."""

    default_code = "context_length_exceeded"
    limit: object = None
    used: object = None


# Messages of a 500 of llama.cpp where the client is at fault.
_CLIENT_FAULTS = re.compile(
    r"(image|audio|video) input is not supported|Failed to parse (tools|messages|input)"
    r"|Invalid (tool|url|content)|[Gg]rammar|[Tt]emplate|[Jj]inja|\[json\.exception|unsupported|parse error"
    r"|type must be|roles must alternate"
)
# Messages of its failures that another request, or a restart, would not meet.
_NOT_ITS_FAULT = re.compile(r"model produced output|input is too large")
# Its message to all requests that run when the cache which they share is full.
_CACHE_FULL = "Context size has been exceeded"
# Its message for an input of embeddings that is too long for one batch, or for a slot.
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is (?:too large|larger)[^(]*\([^)\d]*(\d+)")
# llama.cpp quotes what it could not read after a colon, in quotes or on a line of its own.
_BEFORE_QUOTES = re.compile(r"[:\n\"'`]")
# Its message for media that the model does not take, which it names, or for a part of another type.
UNSUPPORTED_INPUT = re.compile(r"(image|audio|video) input is not supported|unsupported content\[\]\.type")
_JSON_SCHEMA = re.compile(r"JSON schema (error|conversion failed).*", re.DOTALL)
_TEMPLATE = re.compile(r"[Tt]emplate|[Jj]inja|roles must alternate|raise_exception")
# llama.cpp writes where in the template it happened, and then the template's own message (common/jinja/value.cpp).
_TEMPLATE_EXCEPTION = re.compile(r"Jinja Exception: (.+)", re.DOTALL)


class _Translation:
    """A block whose connection errors become ours. It keeps no state, since every request enters one."""

    __slots__ = ("_answered",)

    def __init__(self, answered: bool) -> None:
        self._answered = answered

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, (ConnectionFailure, OSError)):
            raise _translated(error, self._answered) from error


_TRANSLATIONS = (_Translation(False), _Translation(True))


def translate_errors(*, answered: bool) -> AbstractContextManager[None]:
    """Return a block that turns the errors of a connection into ours, and keeps the cause.

    ``answered``: whether the model server has begun to answer. One that hangs up before may be asked once more.
    """
    return _TRANSLATIONS[answered]


def _translated(error: Exception, answered: bool) -> ModelServerError:
    if isinstance(error, HostNotFound):
        return ModelUnusable(_no_connection(error))
    if isinstance(error, NotConnected):
        return ModelUnavailable(_no_connection(error))
    if isinstance(error, Silence):
        return ModelTimeout("The model server kept silent for too long.")
    if answered:
        return ModelServerError("The model server broke off its answer.")
    if is_tls_failure(error):
        return ModelUnusable(_no_connection(error))
    return ModelServerLost("The model server broke off before it answered.")


def _no_connection(error: Exception) -> str:
    return f"The model server does not answer: {failure_cause(error)}."


def cancelled_error(reason: str | None) -> ApiError:
    """Return the failure of a call that we have cancelled."""
    if reason == "shutdown":
        return Unavailable("The server is shutting down.", code="overloaded", retry_after=5)
    return ClientClosedRequest("The client closed the connection.")


def upstream_error(status: int, body: bytes) -> ApiError:
    """Return the exception for an error response of the model server. ``body`` is whatever it sent."""
    return error_from(status, _error_object(body))


def has_error_object(body: bytes) -> bool:
    """Whether the body of an error response has OpenAI's ``error`` object."""
    return bool(_error_object(body))


def _error_object(body: bytes) -> JsonObject:
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = decoded.get("error") if isinstance(decoded, dict) else None
    return error if isinstance(error, dict) else {}


def error_from(status: int, error: JsonObject) -> ApiError:
    """Return the exception for an ``error`` object of the model server. ``status``: the HTTP status."""
    message = str(error.get("message") or f"The model server answered {status}.")
    too_large = _TOO_LARGE.search(message)
    if too_large:
        return context_exceeded(int(too_large[2]), int(too_large[1]), what="your input", param="input")
    if error.get("type") == "exceed_context_size_error":
        return context_exceeded(error.get("n_ctx"), error.get("n_prompt_tokens"))
    if status == 501:  # llama.cpp's status for what this model, or its command line, does not offer
        return ModelServerRefused(message, code="not_supported")
    if status == 503:
        return ModelLoading("The model is being loaded.")
    # Below 400 is a redirection, or a success without an answer: nothing that a client asked for.
    if status < 400 or (status >= 500 and not _CLIENT_FAULTS.search(message)):
        return _failed(message)
    return _refused(status if status < 500 else 400, message, error)


def _failed(message: str) -> ModelServerError:
    """Return a failure. The server is not to blame where the model left the format, or where the context is full."""
    if _CACHE_FULL in message:
        text = "The model server had no room for all requests that ran, and has ended them. Try again."
        return ModelCacheFull(text, retry_after=1)
    text = f"The model server failed: {message}"
    if _NOT_ITS_FAULT.search(message):
        return ModelServerError(text)
    return ModelServerFailed(text, summary=_BEFORE_QUOTES.split(message, maxsplit=1)[0][:100].strip())


def _refused(status: int, message: str, error: JsonObject) -> ModelServerRefused:
    schema = _JSON_SCHEMA.search(message)
    if schema is not None:  # before it llama.cpp says that it could not parse with the template
        return ModelServerRefused(schema[0], code="invalid_json_schema")
    raised = _TEMPLATE_EXCEPTION.search(message)
    text = raised.group(1) if raised else message
    refused = ModelServerRefused(text, code=_code_of(message, error), param=_param_of(message, error))
    refused.status = status
    return refused


def context_exceeded(
    limit: object, used: object, *, what: str = "your messages", param: str = "messages"
) -> ContextExceeded:
    """Return the error in OpenAI's words, by which clients recognise it. ``what``: what was too long."""
    error = ContextExceeded(
        f"This model's maximum context length is {limit} tokens. However, {what} resulted in "
        f"{used} tokens. Please reduce the length of the {param.partition('[')[0]}.",
        param=param,
    )
    error.limit, error.used = limit, used
    return error


def _code_of(message: str, error: JsonObject) -> str | None:
    if isinstance(error.get("code"), str):
        return str(error["code"])
    if UNSUPPORTED_INPUT.search(message):
        return "unsupported_value"
    return "chat_template_error" if _TEMPLATE.search(message) else "invalid_value"


def _param_of(message: str, error: JsonObject) -> str | None:
    """Return the field that the model server names, or that stands in llama.cpp's ``Field 'n': …``."""
    if isinstance(error.get("param"), str):
        return str(error["param"])
    field = re.match(r"Field '([^']+)'", message)
    if field:
        return field.group(1)
    return "messages" if UNSUPPORTED_INPUT.search(message) or _TEMPLATE.search(message) else None
