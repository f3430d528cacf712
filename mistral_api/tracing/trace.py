"""The trace of one request, as those see it who do something for the request. This one records nothing.

:class:`RequestTrace` is what everybody has while tracing is off: its methods do nothing, and OpenTelemetry is not
imported. ``tracing.recorded_trace`` has the other one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

_NOTHING: AbstractContextManager[None] = contextlib.nullcontext()
NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What is known of a generation before it begins. ``endpoint`` is the path under which it is recorded."""

    endpoint: str
    model: str | None
    session: str | None
    stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationEnd:
    """How a generation ended: token counts, where they are known, and the code of the error, where there is one."""

    finish_reason: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    first_token_seconds: float | None
    error_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnd:
    """How a request ended. ``path`` is as far as a log may show it."""

    route: str | None
    path: str
    status: int
    error_code: str | None


class RequestTrace:
    """The trace of a request that nobody records. Any thread may call it."""

    __slots__ = ()

    def span(self, name: str, **attributes: str) -> AbstractContextManager[None]:
        """Return a block whose time is a span of the trace."""
        return _NOTHING

    def note_wait(self, kind: str, seconds: float) -> None:
        """Note a wait that has just ended."""

    def describe(self, generation: Generation) -> None:
        """Note what is going to be generated."""

    def begin_upstream(self) -> None:
        """Note that the model server is about to be asked for what was described."""

    def note_first_token(self) -> None:
        """Note that the model server has begun to generate."""

    def end_upstream(self, end: GenerationEnd) -> None:
        """Note that the generation has ended, whether or not it had begun."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers by which the model server continues the trace (W3C Trace Context)."""
        return NO_HEADERS

    def end(self, end: RequestEnd) -> None:
        """Note that the request has ended."""


NO_TRACE = RequestTrace()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStart:
    """A request that begins. ``thread_wait_seconds``: how long it has waited for a thread, where that is known.

    ``traceparent`` and ``tracestate`` are the headers by which a client continues its own trace.
    """

    method: str
    route: str | None
    scheme: str
    traceparent: str | None = None
    tracestate: str | None = None
    thread_wait_seconds: float | None = None


class Tracer:
    """Makes the traces of requests. This one makes none."""

    # Whether any trace is recorded.
    records = False

    def begin(self, start: RequestStart) -> RequestTrace:
        """Return the trace of a request that begins."""
        return NO_TRACE

    def close(self) -> None:
        """Send what is left, within some seconds."""


NO_TRACER = Tracer()
