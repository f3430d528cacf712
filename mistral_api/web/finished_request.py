"""Tells the observers of finished requests (:mod:`mistral_api.observability`) when the body of a response is closed.

The WSGI server closes the body of every response, whatever happened: a stream at its end, and where its client left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from flask import Flask, request

from mistral_api.observability.finished_request import FinishedRequests
from mistral_api.observability.open_request import OpenRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OPEN_REQUEST = "mistral_api.open_request"


def open_request() -> OpenRequest:
    """Return the current request, as its observers are told of it."""
    found: OpenRequest | None = request.environ.get(_OPEN_REQUEST)
    return _untold(request.method) if found is None else found


def open_request_of(environ: WSGIEnvironment) -> OpenRequest:
    """Return the request with this environment, as :func:`open_request` does; each use of Flask's ``request`` costs."""
    found: OpenRequest | None = environ.get(_OPEN_REQUEST)
    return _untold(environ["REQUEST_METHOD"]) if found is None else found


def _untold(method: str) -> OpenRequest:
    """Return the request of an application whose requests nobody observes."""
    return OpenRequest(FinishedRequests(), method)


def observe_requests(app: Flask, finished: FinishedRequests) -> None:
    """Have the observers told of every request of the application. Call it when all its routes are there."""
    finished.fixed_routes = frozenset(rule.rule for rule in app.url_map.iter_rules() if not rule.arguments)
    app.wsgi_app = ObservedApplication(app.wsgi_app, finished)  # type: ignore[method-assign]


class ObservedApplication:
    """A WSGI application around another one, whose requests are told to observers at their end."""

    def __init__(self, application: WSGIApplication, finished: FinishedRequests) -> None:
        self._application = application
        self._finished = finished

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request. It ends when the WSGI server closes the response."""
        observed = environ[_OPEN_REQUEST] = OpenRequest(self._finished, environ["REQUEST_METHOD"])
        try:
            return _ObservedBody(self._application(environ, start_response), observed)
        except BaseException:
            observed.finish(complete=True)
            raise


class _ObservedBody:
    """The body of a response, which notes whether all of it was taken."""

    __slots__ = ("_close", "_complete", "_next", "_observed")

    def __init__(self, body: Iterable[bytes], observed: OpenRequest) -> None:
        self._next = iter(body).__next__
        self._close: Callable[[], None] | None = getattr(body, "close", None)
        self._observed = observed
        self._complete = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return self._next()
        except StopIteration:
            self._complete = True
            raise

    def close(self) -> None:
        try:
            if self._close is not None:
                self._close()
        finally:
            self._observed.finish(complete=self._complete)
