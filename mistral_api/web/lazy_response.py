"""A response that is made when the WSGI server asks for its first bytes, so that waiting for it needs no thread.

Our web server does so in its event loop (:mod:`mistral_api.event_loop.wsgi`), another one on the thread of the request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, g
from flask.ctx import RequestContext
from flask.globals import request_ctx

from mistral_api.errors import ApiError, internal_error
from mistral_api.event_loop.wsgi import RUNS_AS_TASK, WHILE_WAITING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

# What the response that is made says of itself.
_OWN_HEADERS = frozenset({"content-type", "content-length"})


def _end_nothing() -> None:
    """Nothing has begun."""


@dataclass(frozen=True, slots=True)
class EarlyStream:
    """A stream that may begin before it is made, so that its client is told that it waits.

    ``response`` returns the response without a body. ``report`` returns what the client is told, or None; it may wait.
    ``fail`` returns the end of a stream that has begun so and could not be made.
    """

    response: Callable[[], Response]
    report: Callable[[], bytes | None]
    fail: Callable[[ApiError], bytes]


class LazyResponse(Response):
    """A response in the place of one that is made later. It brings the headers that all responses have."""

    def __init__(
        self,
        make: Callable[[], Response],
        abandon: Callable[[], None] = _end_nothing,
        early: EarlyStream | None = None,
    ) -> None:
        """``make`` returns the response, or raises, outside of the request's context. ``abandon`` is called in its
        place where the client leaves before anything was asked for.
        """
        super().__init__(content_type="application/json")
        self._make = make
        self._abandon = abandon
        self.early = early
        self._errors: _ErrorResponses | None = _ErrorResponses()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Return the body, which begins the response when it is iterated."""
        environ[RUNS_AS_TASK] = True
        body = LazyBody(self, environ, start_response)
        if self.early is not None:
            environ[WHILE_WAITING] = partial(body.report, self.early)
        return body

    def make(self, has_begun: Callable[[], bool]) -> Response:
        """Return the response itself, or the one to its failure; in a stream that has begun meanwhile, its rest."""
        errors, self._errors = self._errors, None  # a stream needs the context of its request no longer
        try:
            made = self._make()
        except Exception as error:
            if self.early is not None and has_begun():
                return _failed_stream(self.early, error)
            if errors is None:
                raise
            return errors.response(error)
        return made if has_begun() else self._complete(made)

    def begin(self, early: EarlyStream) -> Response:
        """Return the response as it begins before it is made."""
        return self._complete(early.response())

    def _complete(self, made: Response) -> Response:
        """Return a response with the headers that all have."""
        for name, value in self.headers:
            if name.lower() not in _OWN_HEADERS:
                made.headers.add(name, value)
        return made

    def abandon(self) -> None:
        """Give the response up before anything was asked for."""
        self._abandon()


class _ErrorResponses:
    """Makes the responses to failures, as Flask does within the request."""

    def __init__(self) -> None:
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        # What is needed of them costs too much to be copied for a failure that seldom comes.
        self._context: RequestContext = request_ctx._get_current_object()  # type: ignore[attr-defined]
        self._globals: Any = g._get_current_object()

    def response(self, error: Exception) -> Response:
        """Return the response to a failure, with the headers of all responses."""
        with self._context.copy():
            for name in self._globals:
                setattr(g, name, self._globals.get(name))
            made = self._app.make_response(self._app.handle_user_exception(error))
            return self._app.process_response(made)


def _failed_stream(early: EarlyStream, error: Exception) -> Response:
    """Return the end of a stream that has begun and could not be made."""
    if not isinstance(error, ApiError):
        log.error("unforeseen failure of a stream that was waited for", exc_info=error)
        error = internal_error()
    return Response([early.fail(error)])


def _start_nothing(_status: str, _headers: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], object]:
    """Do nothing: the response has begun already."""
    return len


class LazyBody:
    """The body of a lazy response."""

    def __init__(self, lazy: LazyResponse, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._lazy = lazy
        self._environ = environ
        self._start_response = start_response
        self._body: Iterable[bytes] | None = None
        self._pieces: Iterator[bytes] = iter(())
        # Whether the response has begun with a report; and whether it is none to report on.
        self._has_begun = self._failed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._body is None:
            self.begin()
        return next(self._pieces)

    def begin(self) -> None:
        """Make the response, and call ``start_response`` unless that has been done. It may wait."""
        made = self._lazy.make(lambda: self._has_begun)
        self._failed = made.status_code >= HTTPStatus.BAD_REQUEST
        self._body = made(self._environ, _start_nothing if self._has_begun else self._start_response)
        self._pieces = iter(self._body)

    def report(self, early: EarlyStream) -> bytes | None:
        """Return what is sent while the body is waited for, if anything. It begins the response where need be."""
        said = early.report()
        if said is None or self._failed:
            return None
        if self._body is None and not self._has_begun:
            self._has_begun = True
            self._lazy.begin(early)(self._environ, self._start_response)
        return said

    def close(self) -> None:
        if self._body is None:
            self._lazy.abandon()
            return
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
