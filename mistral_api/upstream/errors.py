"""What goes wrong with the model server, in our own words: the one translation.

Library errors become our exceptions here, and the model server's error bodies become OpenAI's.
llama.cpp's own error types are in its tools/server/README.md and server-common.cpp
(``exceed_context_size_error``, ``unavailable_error`` …); its ``code`` is the HTTP number.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import orjson
import requests
import urllib3

from mistral_api.errors import (
    ApiError,
    ModelLoading,
    ModelServerError,
    ModelServerFailed,
    ModelServerLost,
    ModelServerRefused,
    ModelTimeout,
    ModelUnavailable,
    Unavailable,
)

CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that left before its answer


class ClientClosedRequest(ApiError):
    """The client left. Nobody reads this answer; it is what the record says."""

    status = CLIENT_CLOSED_REQUEST
    default_code = "client_closed_request"


class ContextExceeded(ModelServerRefused):
    """The prompt does not fit: ``used`` tokens, of at most ``limit``; None where the model server did not say."""

    default_code = "context_length_exceeded"
    limit: object = None
    used: object = None


# Requests that llama.cpp answers with a 500 although the client is at fault.
_CLIENT_FAULTS = re.compile(
    r"(image|audio|video) input is not supported|Failed to parse (tools|messages|input)"
    r"|Invalid (tool|url|content)|[Gg]rammar|[Tt]emplate|[Jj]inja|\[json\.exception|unsupported|parse error"
    r"|type must be|roles must alternate"
)
# Its other failures that another request, or a restart, would not meet.
_NOT_ITS_FAULT = re.compile(r"model produced output|Context size has been exceeded|input is too large")
# What it says of a text that is to become a vector and is too long for one batch, or for a slot.
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is (?:too large|larger)[^(]*\([^)\d]*(\d+)")
# llama.cpp quotes what it could not read after a colon, in quotes or on a line of its own.
_BEFORE_QUOTES = re.compile(r"[:\n\"'`]")
_UNSUPPORTED_INPUT = re.compile(r"(image|audio|video) input is not supported|unsupported content\[\]\.type")
_JSON_SCHEMA = re.compile(r"JSON schema (error|conversion failed).*", re.DOTALL)
_TEMPLATE = re.compile(r"[Tt]emplate|[Jj]inja|roles must alternate|raise_exception")
# llama.cpp puts where in the template it happened before what the template says (common/jinja/value.cpp).
_TEMPLATE_SAYS = re.compile(r"Jinja Exception: (.+)", re.DOTALL)


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the errors of requests and urllib3 into ours, keeping the cause."""
    try:
        yield
    except (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError) as error:
        raise ModelUnavailable("The model server does not accept connections.") from error
    except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise ModelTimeout("The model server kept silent for too long.") from error
    except requests.ConnectionError as error:
        raise _from_connection_error(error) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise ModelServerError("The model server broke off its answer.") from error


def _from_connection_error(error: requests.ConnectionError) -> ModelServerError:
    """Tell "nobody is there" from "somebody hung up"."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        return ModelUnavailable("The model server is not running.")
    if isinstance(reason, urllib3.exceptions.ReadTimeoutError):
        return ModelTimeout("The model server kept silent for too long.")
    return ModelServerLost("The model server broke off before it answered.")


def cancelled_error(reason: str | None) -> ApiError:
    """The failure of a call that we ended ourselves."""
    if reason == "shutdown":
        return Unavailable("The server is shutting down.", code="overloaded", retry_after=5)
    return ClientClosedRequest("The client closed the connection.")


def upstream_error(status: int, body: bytes) -> ApiError:
    """The model server's error answer in our shape. ``body`` is whatever it sent."""
    return error_from(status, _error_object(body))


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = decoded.get("error") if isinstance(decoded, dict) else None
    return error if isinstance(error, dict) else {}


def error_from(status: int, error: dict[str, Any]) -> ApiError:
    """One of our exceptions for an ``error`` object of the model server; ``status`` is HTTP's."""
    message = str(error.get("message") or f"The model server answered {status}.")
    too_large = _TOO_LARGE.search(message)
    if too_large:
        return context_exceeded(too_large[2], too_large[1], what="your input", param="input")
    if error.get("type") == "exceed_context_size_error":
        return context_exceeded(error.get("n_ctx"), error.get("n_prompt_tokens"))
    if status == 501:  # llama.cpp's word for what this model, or its command line, does not offer
        return ModelServerRefused(message, code="not_supported")
    if status == 503:
        return ModelLoading("The model is being loaded.")
    if status >= 500 and not _CLIENT_FAULTS.search(message):
        return _failed(message)
    return _refused(status if status < 500 else 400, message, error)


def _failed(message: str) -> ModelServerError:
    """The server is not to blame for a model that left the format asked for, or for a context that is full."""
    told = f"The model server failed: {message}"
    if _NOT_ITS_FAULT.search(message):
        return ModelServerError(told)
    return ModelServerFailed(told, summary=_BEFORE_QUOTES.split(message, maxsplit=1)[0][:100].strip())


def _refused(status: int, message: str, error: dict[str, Any]) -> ModelServerRefused:
    schema = _JSON_SCHEMA.search(message)
    if schema is not None:  # llama.cpp says before it that it could not parse with the template
        return ModelServerRefused(schema[0], code="invalid_json_schema")
    says = _TEMPLATE_SAYS.search(message)
    shown = says.group(1) if says else message
    refused = ModelServerRefused(shown, code=_code_of(message, error), param=_param_of(message, error))
    refused.status = status
    return refused


def context_exceeded(
    limit: object, used: object, *, what: str = "your messages", param: str = "messages"
) -> ContextExceeded:
    """OpenAI's wording: clients recognise an overlong prompt by it. ``what`` was too long."""
    error = ContextExceeded(
        f"This model's maximum context length is {limit} tokens. However, {what} resulted in "
        f"{used} tokens. Please reduce the length of the {param.partition('[')[0]}.",
        param=param,
    )
    error.limit, error.used = limit, used
    return error


def _code_of(message: str, error: dict[str, Any]) -> str | None:
    if isinstance(error.get("code"), str):
        return str(error["code"])
    if _UNSUPPORTED_INPUT.search(message):
        return "unsupported_value"
    return "chat_template_error" if _TEMPLATE.search(message) else "invalid_value"


def _param_of(message: str, error: dict[str, Any]) -> str | None:
    """The field: named by the model server, or read out of llama.cpp's ``Field 'n': …``."""
    if isinstance(error.get("param"), str):
        return str(error["param"])
    field = re.match(r"Field '([^']+)'", message)
    if field:
        return field.group(1)
    return "messages" if _UNSUPPORTED_INPUT.search(message) or _TEMPLATE.search(message) else None
