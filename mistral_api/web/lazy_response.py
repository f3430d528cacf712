"""A response that is made when the WSGI server asks for its first bytes, so that waiting for it needs no thread.

Our web server does so in its event loop (:mod:`mistral_api.event_loop.wsgi`), another one on the thread of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, g
from flask.globals import request_ctx

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# What the response that is made says of itself.
_OWN_HEADERS = frozenset({"content-type", "content-length"})


def _end_nothing() -> None:
    """Nothing has begun."""


class LazyResponse(Response):
    """A response in the place of one that is made later. It brings the headers that all responses have."""

    def __init__(self, make: Callable[[], Response], abandon: Callable[[], None] = _end_nothing) -> None:
        """``make`` returns the response, or raises, outside of the request's context. ``abandon`` is called in its
        place where the client leaves before anything was asked for.
        """
        super().__init__()
        self._make = make
        self._abandon = abandon
        self._errors = _ErrorResponses()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Return the body, which begins the response when it is iterated."""
        # TODO with the raw connections: environ[RUNS_AS_TASK] = True
        return _LazyBody(self, environ, start_response)

    def make(self) -> Response:
        """Return the response itself, or the one to its failure."""
        try:
            made = self._make()
        except Exception as error:  # noqa: BLE001 - becomes a response, as Flask makes one of any failure of a view
            return self._errors.response(error)
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
        self._context = request_ctx.copy()
        self._globals: dict[str, Any] = {name: g.get(name) for name in g}

    def response(self, error: Exception) -> Response:
        """Return the response to a failure, with the headers of all responses."""
        with self._context:
            for name, value in self._globals.items():
                setattr(g, name, value)
            made = self._app.make_response(self._app.handle_user_exception(error))
            return self._app.process_response(made)


class _LazyBody:
    """The body of a lazy response."""

    def __init__(self, lazy: LazyResponse, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._lazy = lazy
        self._environ = environ
        self._start_response = start_response
        self._body: Iterable[bytes] | None = None
        self._pieces: Iterator[bytes] = iter(())

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._body is None:
            self._body = self._lazy.make()(self._environ, self._start_response)
            self._pieces = iter(self._body)
        return next(self._pieces)

    def close(self) -> None:
        if self._body is None:
            self._lazy.abandon()
            return
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
