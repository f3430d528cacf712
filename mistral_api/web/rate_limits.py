"""Rate limits over HTTP: which requests count, the headers that tell what is left, and the end of a permit.

A request that asks the model server holds one of its caller's places until the end of its response is sent, or its
client has left: the WSGI server closes the body of every response, whatever happened. Our own server has it let go just
before the last bytes, so that a client that has seen the end finds its place free in every API process. Other reads
hold none, so that a client can poll the response that it has running in the background; one that follows its events
holds a place among the followers.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from flask import Flask, Request, Response, g, request
from werkzeug.wsgi import ClosingIterator

from mistral_api.event_loop.wsgi import BEFORE_SENDING
from mistral_api.security.access import Caller
from mistral_api.security.rate_limits import FOLLOWERS, MODEL_REQUESTS, LimitWindows, Permit, RateLimited, RateLimits
from mistral_api.security.window_counts import WindowUsage
from mistral_api.upstream.sse import DONE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PERMIT = "mistral_api.permit"
# What many clients read no further than.
_LAST_EVENT = DONE + b"\n\n"
# With ``stream`` it sends the events of a response in the background, until its end.
_FOLLOW_ENDPOINT = "responses.retrieve"
# The page that documents the API, and its files: one look at it is a dozen requests, none of which costs anything.
_UNCOUNTED_BLUEPRINTS = frozenset({"documentation"})
# The Flask endpoints that ask the model server for something. A test compares them with ``operations``.
MODEL_ENDPOINTS = frozenset(
    {
        "chat.create_chat_completion",
        "completions.create_completion",
        "responses.create",
        "responses.count_input_tokens",
        "embeddings.create_embeddings",
        "embeddings.rerank",
        "anthropic.create_message",
        "anthropic.count_tokens",
        "ollama.chat",
        "ollama.generate",
        "ollama.embed",
        "ollama.embeddings",
        "ollama_models.show",
        "ollama_models.pull",
        "llama_cpp.complete",
        "llama_cpp.completion_alias",
        "llama_cpp.infill",
        "llama_cpp.tokenize",
        "llama_cpp.detokenize",
        "llama_cpp.apply_template",
        "model_server.act_on_slot",
        "model_server.change_props",
        "model_server.change_adapters",
        "model_server.load_model",
        "model_server.unload_model",
    }
)


def admit_request(limits: RateLimits, caller: Caller, asked: Request) -> None:
    """Count the current request, before anything else is done for it. Raises RateLimited, or Unavailable."""
    if asked.blueprint in _UNCOUNTED_BLUEPRINTS or asked.method == "OPTIONS":
        return
    try:
        permit = limits.admit(caller, _place_among(asked))
    except RateLimited as error:
        g.limit_windows = error.windows
        raise
    if permit is not None:
        asked.environ[_PERMIT] = permit
        g.limit_windows = permit.windows


def _place_among(asked: Request) -> str | None:
    if asked.endpoint in MODEL_ENDPOINTS:
        return MODEL_REQUESTS
    return FOLLOWERS if asked.endpoint == _FOLLOW_ENDPOINT and "stream" in asked.args else None


def current_permit() -> Permit | None:
    """Return the permit of the current request, if its caller has limits."""
    permit: Permit | None = request.environ.get(_PERMIT)
    return permit


def register_rate_limits(app: Flask) -> None:
    """Give responses the headers of their caller's limits, and release every permit when its response is closed."""
    app.after_request(_add_headers)
    app.wsgi_app = ReleasingApplication(app.wsgi_app)  # type: ignore[method-assign]


class ReleasingApplication:
    """A WSGI application around another one that releases the permit of each request, whatever becomes of it."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request. Its permit ends when the WSGI server closes the response: in ours, just before its end."""
        try:
            response = self._application(environ, start_response)
        except BaseException:
            _release(environ)
            raise
        permit: Permit | None = environ.get(_PERMIT)
        if permit is None:
            return response
        environ[BEFORE_SENDING] = partial(_let_go_before_end, permit)
        return ClosingIterator(response, lambda: _release(environ))


def _let_go_before_end(permit: Permit, piece: bytes, is_last: bool) -> None:
    """Release a permit before the client sees the end of its response."""
    if is_last or piece.endswith(_LAST_EVENT):
        permit.release()


def _release(environ: WSGIEnvironment) -> None:
    permit: Permit | None = environ.get(_PERMIT)
    if permit is not None:
        permit.release()


def _add_headers(response: Response) -> Response:
    windows: LimitWindows | None = g.get("limit_windows")
    if windows is not None:
        anthropic = request.blueprint == "anthropic"
        for what, usage in (("requests", windows.requests), ("tokens", windows.tokens)):
            if usage is not None:
                response.headers.extend(_anthropic_headers(what, usage) if anthropic else _openai_headers(what, usage))
    return response


def _openai_headers(what: str, usage: WindowUsage) -> dict[str, str]:
    """Return the headers of OpenAI's API ("Rate limits in headers" in OpenAI's guide to rate limits)."""
    return {
        f"x-ratelimit-limit-{what}": str(usage.limit),
        f"x-ratelimit-remaining-{what}": str(usage.remaining),
        f"x-ratelimit-reset-{what}": duration(usage.reset_after),
    }


def _anthropic_headers(what: str, usage: WindowUsage) -> dict[str, str]:
    """Return the headers of Anthropic's API ("Response headers" in Anthropic's page on rate limits)."""
    reset = datetime.now(UTC) + timedelta(seconds=ceil(usage.reset_after))
    return {
        f"anthropic-ratelimit-{what}-limit": str(usage.limit),
        f"anthropic-ratelimit-{what}-remaining": str(usage.remaining),
        f"anthropic-ratelimit-{what}-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def duration(seconds: float) -> str:
    """Return a duration in the form of OpenAI's headers, in whole seconds: ``0s``, ``1s``, ``6m0s``."""
    minutes, rest = divmod(ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
