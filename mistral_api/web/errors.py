"""Failures as Flask responses: the one place that renders an error body."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

import orjson
from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as RoutingNotFound

from mistral_api.errors import ApiError, error_headers, internal_error, refused_request
from mistral_api.generation.error_shapes import error_body
from mistral_api.web.audit import note_refusal
from mistral_api.web.finished_request import open_request
from mistral_api.web.request import shown_request_id, shown_route

log = logging.getLogger(__name__)


def error_response(error: ApiError) -> Response:
    """The HTTP response to a failure that no dialect's own views have had."""
    body = orjson.dumps(error_body(error, request.path, shown_request_id()))
    return Response(body, status=error.status, headers=error_headers(error), mimetype="application/json")


def _from_http_exception(error: HTTPException) -> ApiError:
    """Werkzeug's own failures (routing, body size, body reading) in our shape."""
    if error.code is None or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error()
    failure = refused_request(error.code, error.description or error.name)
    if isinstance(error, MethodNotAllowed):
        failure.message, failure.code = f"Not allowed to {request.method} on {request.path}", "method_not_supported"
    elif isinstance(error, RoutingNotFound):
        failure.message, failure.code = f"Invalid URL ({request.method} {request.path})", "unknown_url"
    return failure


def handle_errors(target: Flask | Blueprint, render: Callable[[ApiError], Response] = error_response) -> None:
    """Make every failure of an application, or within one blueprint, leave in one shape."""

    def _render(error: ApiError) -> Response:
        open_request().error_code = error.code or error.type
        return render(error)

    @target.errorhandler(ApiError)
    def _ours(error: ApiError) -> Response:
        note_refusal(error)
        return _render(error)

    @target.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        failure = _from_http_exception(error)
        note_refusal(failure)
        response = _render(failure)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    @target.errorhandler(Exception)
    def _unforeseen(error: Exception) -> Response:
        log.error("unforeseen failure in %s %s", request.method, shown_route(), exc_info=error)
        return _render(internal_error())
