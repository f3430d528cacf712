"""Traces that are recorded by OpenTelemetry and sent by OTLP over HTTP.

Spans of a request: ``METHOD route`` (kind server), ``queue`` for each wait (``wait`` is ``thread`` or ``slot``),
``OPERATION model`` for the model server (kind client, with the event ``first token``), and ``journal`` for each write.
No span has anything that a user or a model wrote.

The attributes are those of OpenTelemetry's semantic conventions: "HTTP spans" (semantic-conventions,
docs/http/http-spans.md) and "GenAI client inference" (semantic-conventions-genai, docs/gen-ai/client-inference.md).
The exporter, the queue and the sampler are the SDK's, and so are the variables OTEL_* that they read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mistral_api.system.logs import ThrottledWarning
from mistral_api.tracing.trace import Generation, GenerationEnd, RequestEnd, RequestStart, RequestTrace, Tracer
from mistral_api.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

log = logging.getLogger(__name__)

SERVICE_NAME = "mistral-local-api"
# How long the end of the server waits until what is left has been sent.
CLOSE_SECONDS = 3.0
_OPERATIONS = {
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/completions": "text_completion",
    "/completion": "text_completion",
    "/infill": "text_completion",
}
_PROPAGATOR = TraceContextTextMapPropagator()
FIRST_TOKEN = "first token"  # noqa: S105 - the name of an event


class QuietExporter(SpanExporter):
    """Sends spans by another exporter. A receiver that is away costs one line in the log a minute."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._warn = ThrottledWarning(log)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; those that cannot be sent are dropped."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - a library's failure must not end the thread that exports
            self._warn("traces cannot be sent to %s: %s", self._endpoint, type(error).__name__)
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._warn("traces cannot be sent to %s: they are dropped", self._endpoint)
        return result

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held here."""
        return True


class RecordingTracer(Tracer):
    """Makes traces that are recorded. Owns the thread that sends them, until :meth:`close`."""

    records = True

    def __init__(self, server: Mapping[str, AttributeValue], endpoint: str) -> None:
        """``server``: the attributes of the model server; ``endpoint``: what the log calls the receiver."""
        # The exporter logs each failure, some with a traceback; the line of QuietExporter says enough.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._server = server
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        service = {"service.version": VERSION} | ({} if named else {"service.name": SERVICE_NAME})
        self._provider = TracerProvider(resource=Resource.create(service), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(QuietExporter(OTLPSpanExporter(), endpoint)))
        self._tracer = self._provider.get_tracer("mistral_api", VERSION)

    def begin(self, start: RequestStart) -> RequestTrace:
        """Return the trace of a request that begins, within that of its client if it has one."""
        carrier = {"traceparent": start.traceparent, "tracestate": start.tracestate}
        context = _PROPAGATOR.extract({name: value for name, value in carrier.items() if value is not None})
        waited = start.thread_wait_seconds or 0.0
        span = self._tracer.start_span(
            f"{start.method} {start.route}" if start.route else start.method,
            context,
            SpanKind.SERVER,
            {"http.request.method": start.method, "url.scheme": start.scheme},
            start_time=time.time_ns() - int(waited * 1e9),
        )
        trace = RecordedTrace(self, span)
        if start.thread_wait_seconds is not None:
            trace.note_wait("thread", start.thread_wait_seconds)
        return trace

    def start_span(
        self,
        name: str,
        context: Context,
        attributes: Mapping[str, AttributeValue],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        start_time: int | None = None,
    ) -> Span:
        """Return a span within another one."""
        return self._tracer.start_span(name, context, kind, attributes, start_time=start_time)

    def inference_attributes(self, generation: Generation) -> dict[str, AttributeValue]:
        """Return the attributes of a generation that begins."""
        attributes: dict[str, AttributeValue] = {"gen_ai.operation.name": operation_of(generation.endpoint)}
        attributes |= self._server
        for name, value in (("gen_ai.request.model", generation.model), ("gen_ai.conversation.id", generation.session)):
            if value is not None:
                attributes[name] = value
        if generation.stream:
            attributes["gen_ai.request.stream"] = True
        return attributes

    def close(self) -> None:
        """Send what is left, for CLOSE_SECONDS at most."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        thread.start()
        thread.join(timeout=CLOSE_SECONDS)


def operation_of(endpoint: str) -> str:
    """Return the name of an operation (``gen_ai.operation.name``) by the endpoint."""
    return _OPERATIONS.get(endpoint, "chat")


class RecordedTrace(RequestTrace):
    """The trace of a request that is recorded."""

    __slots__ = ("_context", "_described", "_inference", "_lock", "_span", "_tracer")

    def __init__(self, tracer: RecordingTracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span)
        self._described: Generation | None = None
        self._inference: Span | None = None
        # A response in the background goes on while its request ends.
        self._lock = threading.Lock()

    def span(self, name: str, **attributes: str) -> AbstractContextManager[None]:
        """Return a block whose time is a span of the trace."""
        return self._block(name, attributes)

    @contextlib.contextmanager
    def _block(self, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        span = self._tracer.start_span(name, self._context, attributes)
        try:
            yield
        except BaseException as error:
            _fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def note_wait(self, kind: str, seconds: float) -> None:
        """Note a wait that has just ended."""
        began = time.time_ns() - int(seconds * 1e9)
        self._tracer.start_span("queue", self._context, {"wait": kind}, start_time=began).end()

    def describe(self, generation: Generation) -> None:
        """Note what is going to be generated."""
        self._described = generation

    def begin_upstream(self) -> None:
        """Begin the span of the generation, unless an earlier request of the same plan has begun it."""
        generation = self._described
        with self._lock:
            if generation is None or self._inference is not None:
                return
            name = operation_of(generation.endpoint)
            self._inference = self._tracer.start_span(
                f"{name} {generation.model}" if generation.model else name,
                self._context,
                self._tracer.inference_attributes(generation),
                kind=SpanKind.CLIENT,
            )

    def note_first_token(self) -> None:
        """Note that the model server has begun to generate."""
        if self._inference is not None:
            self._inference.add_event(FIRST_TOKEN)

    def end_upstream(self, end: GenerationEnd) -> None:
        """End the span of the generation, where it has begun."""
        with self._lock:
            span, self._described = self._inference, None
        if span is None:
            return
        for name, value in (
            ("gen_ai.usage.input_tokens", end.prompt_tokens),
            ("gen_ai.usage.cache_read.input_tokens", end.cached_tokens),
            ("gen_ai.usage.output_tokens", end.completion_tokens),
            ("gen_ai.response.time_to_first_chunk", end.first_token_seconds),
            ("gen_ai.response.finish_reasons", None if end.finish_reason is None else [end.finish_reason]),
        ):
            if value is not None:
                span.set_attribute(name, value)
        _fail(span, end.error_code)
        span.end()

    def headers(self) -> Mapping[str, str]:
        """Return the headers by which the model server continues the trace."""
        carrier: dict[str, str] = {}
        inference = self._inference
        _PROPAGATOR.inject(carrier, self._context if inference is None else set_span_in_context(inference))
        return carrier

    def end(self, end: RequestEnd) -> None:
        """End the span of the request."""
        span = self._span
        span.set_attribute("http.response.status_code", end.status)
        span.set_attribute("url.path", end.path)
        if end.route is not None:
            span.set_attribute("http.route", end.route)
        if end.error_code is not None:
            span.set_attribute("error.type", end.error_code)
        if end.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()


def _fail(span: Span, error_code: str | None) -> None:
    if error_code is not None:
        span.set_attribute("error.type", error_code)
        span.set_status(StatusCode.ERROR)
