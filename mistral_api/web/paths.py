"""Paths as clients spell them, and requests for their options."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Flask, Response, request

from mistral_api.security.origins import is_preflight
from mistral_api.security.request_head import head_from_environ
from mistral_api.wire.paths import canonical_path

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class CanonicalPaths:
    """A WSGI application around another one, which sees each path under its own name.

    A redirect would not do: most clients repeat a POST without its body, or not at all. Our web server has done it
    before, so that its gate and its lanes know the path; other servers have not.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        environ["PATH_INFO"] = canonical_path(environ.get("PATH_INFO") or "/")
        return self._application(environ, start_response)


def answer_spellings(app: Flask) -> None:
    """Have an application answer every spelling of its paths, and requests for their options with 204."""
    app.wsgi_app = CanonicalPaths(app.wsgi_app)  # type: ignore[method-assign]
    app.after_request(_shorten_options)


def _shorten_options(response: Response) -> Response:
    """Make the answer to OPTIONS one without a body. A browser's preflight is answered as Flask-CORS does."""
    if request.method == "OPTIONS" and response.status_code == HTTPStatus.OK:
        if not is_preflight(head_from_environ(request.environ)):
            response.status_code = HTTPStatus.NO_CONTENT
        response.headers.pop("Content-Type", None)
    return response
