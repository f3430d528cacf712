"""A request until its end: what its observers are going to be told of it is gathered here."""

from __future__ import annotations

import time
from typing import TypedDict

from mistral_api.observability.finished_request import FinishedRequest, FinishedRequests
from mistral_api.recording.exchange import Exchange
from mistral_api.security.access import Caller
from mistral_api.tracing.trace import NO_TRACE, RequestEnd, RequestTrace

# The error of a request whose client left before it had the whole response.
CLIENT_LEFT = "client_closed_request"


class OpenRequest:
    """One request, from its arrival to :meth:`finish`, on the thread that answers it.

    The exchange of a response in the background ends on another thread (:meth:`note_exchange` after
    :meth:`detach_exchange`). The public attributes are those of :class:`FinishedRequest`, and who calls.
    """

    __slots__ = (
        "_detached", "_ended", "_exchange", "_finished", "_started",
        "caller", "error_code", "method", "path", "request_id", "route", "status", "trace",
    )  # fmt: skip

    def __init__(self, finished: FinishedRequests, method: str) -> None:
        """``finished`` tells the observers."""
        self._finished = finished
        finished.count_open(1)
        self._started = time.monotonic()
        self._exchange: Exchange | None = None
        self._detached = self._ended = False
        self.method = method
        self.request_id = self.path = ""
        self.route: str | None = None
        self.caller: Caller | None = None
        self.error_code: str | None = None
        self.trace: RequestTrace = NO_TRACE
        # What the web server sends where the application fails before it has a response.
        self.status = 500

    def detach_exchange(self) -> None:
        """Have the exchange told by itself at its end, since it goes on when the response has been sent."""
        self._detached = True

    def note_exchange(self, exchange: Exchange) -> None:
        """Note the exchange, which has ended."""
        if not self._detached:
            self._exchange = exchange
            self.error_code = self.error_code or exchange.error_code
            return
        self._finished.tell(self._told(exchange.status, exchange.latency_ms, exchange.error_code, exchange))

    def finish(self, *, complete: bool) -> None:
        """Tell the observers; later calls do nothing. ``complete``: the whole response was handed over."""
        if self._ended:
            return
        self._ended = True
        self._finished.count_open(-1)
        error_code = self.error_code if complete else self.error_code or CLIENT_LEFT
        duration_ms = (time.monotonic() - self._started) * 1000
        self._finished.tell(self._told(self.status, duration_ms, error_code, self._exchange))
        if self.trace is not NO_TRACE:
            self.trace.end(RequestEnd(route=self.route, path=self.path, status=self.status, error_code=error_code))

    def _told(
        self, status: int, duration_ms: float, error_code: str | None, exchange: Exchange | None
    ) -> FinishedRequest:
        caller = self.caller
        key = None if caller is None else caller.key
        return FinishedRequest(
            request_id=self.request_id,
            method=self.method,
            route=self.route,
            path=self.path,
            status=status,
            duration_ms=duration_ms,
            address=None if caller is None else caller.address,
            key_name=None if key is None else key.name,
            error_code=error_code,
            background=self._detached and exchange is not None,
            **(_NO_FIGURES if exchange is None else _figures_of(exchange)),
        )


class _Figures(TypedDict, total=False):
    endpoint: str
    model: str | None
    session: str | None
    client: str | None
    ttft_ms: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    tokens_per_second: float | None


_NO_FIGURES: _Figures = {}


def _figures_of(exchange: Exchange) -> _Figures:
    return {
        "endpoint": exchange.endpoint,
        "model": exchange.model,
        "session": exchange.session_id,
        "client": exchange.client,
        "ttft_ms": exchange.time_to_first_token_ms,
        "prompt_tokens": exchange.prompt_tokens,
        "cached_tokens": exchange.cached_tokens,
        "completion_tokens": exchange.completion_tokens,
        "tokens_per_second": exchange.tokens_per_second,
    }
