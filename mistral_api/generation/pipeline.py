"""The pipeline of one generation: it alone reads the stream, renders it, finishes, fails and closes it.

Its steps (:meth:`GenerationPipeline.render`, :meth:`~GenerationPipeline.finish`, :meth:`~GenerationPipeline.fail`)
never wait. Only the two drivers do, iterating for a response that streams and :meth:`GenerationPipeline.body` for one
that does not.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import cast

from mistral_api.errors import ApiError, ModelServerRefused, internal_error
from mistral_api.generation.renderer import Renderer, ResponseBody
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.completions import Completion
from mistral_api.upstream.errors import ClientClosedRequest
from mistral_api.upstream.sse import EventBatch, SSEStream

log = logging.getLogger(__name__)


class GenerationPipeline:
    """One generation, from the first bytes of the model server to the recorded end. Iterate it, or ask for its body.

    As an iterable it is the body of a streaming HTTP response: closing it early frees the model server's slot.
    """

    def __init__(
        self,
        exchange: RunningExchange,
        renderer: Renderer,
        open_stream: Callable[[], SSEStream],
        name_refused_field: Callable[[ModelServerRefused], None],
    ) -> None:
        """``open_stream`` sends the request to the model server; ``name_refused_field`` completes a refusal with the
        field of the client's request that is at fault."""
        self.exchange = exchange
        self.renderer = renderer
        self._open_stream = open_stream
        self._name_refused_field = name_refused_field
        self._stream: SSEStream | None = None
        # Whether the first events have come.
        self.has_begun = False
        self._first_events_rendered = False
        # Whether the last events have been rendered: nothing may follow them.
        self._closed = False
        # The batch that is being sent, and has not been decoded yet.
        self._relayed: EventBatch | None = None

    def open(self) -> SSEStream:
        """Send the request and wait for the first events. A failure before them is not part of the response.

        Raises our exceptions.
        """
        if self._stream is None:
            with self._refused_field_named():
                stream = self._open_stream()
                self._stream = stream
                stream.report_figures(self.exchange.read_figures)
                stream.wait_for_first()
                self.has_begun = True
        return self._stream

    def comment(self, text: str) -> bytes:
        """Return what tells the client of the stream something that is no part of the response, if anything can."""
        return b"" if self._closed else self.renderer.comment(text)

    def first_events(self) -> bytes:
        """Return the events that come before all others, once."""
        if self._first_events_rendered:
            return b""
        self._first_events_rendered = True
        return self.renderer.first_events()

    def render(self, batch: EventBatch) -> Iterator[bytes]:
        """Yield what the client reads of a batch, and take the batch into the transcript.

        What is relayed untouched goes out first: it is decoded while the next bytes are on their way.
        """
        if batch.generated:
            self.exchange.note_first_token()
        relayed = self.renderer.relay(batch)
        if relayed is not None:
            self._relayed = batch
            yield relayed
            self._read_relayed()
            return
        rendered = bytearray()
        try:
            for event in batch.events:
                self.exchange.read_event(event)
                rendered += self.renderer.event(event)
        finally:  # what came before an event that makes no sense is sent too
            if rendered:
                yield bytes(rendered)

    def _read_relayed(self) -> None:
        batch, self._relayed = self._relayed, None
        if batch is not None:
            self.exchange.read(batch)

    def finish(self) -> bytes:
        """End a complete response. Return its last events: whoever has seen them finds the exchange recorded."""
        self._complete()
        closing = self.renderer.closing()
        self._closed = True
        return closing

    def _complete(self) -> None:
        self.renderer.complete()
        self.exchange.succeed()

    def fail(self, error: ApiError) -> bytes:
        """End a response that has failed, unless its last events have been rendered. Return its last events."""
        if self._closed:
            return b""
        self._closed = True
        try:
            self._read_relayed()
        except Exception:
            log.exception("what was relayed last cannot be recorded")
        try:
            return self.renderer.failure(error)
        finally:
            self.exchange.fail(error)

    def close(self) -> None:
        """End the request. The WSGI server calls this whatever happened: before the end the client has left."""
        self.fail(ClientClosedRequest("The client closed the connection."))
        self._close_stream()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes of the response as they come, a failure among them."""
        try:
            opening = self.first_events()
            if opening:
                yield opening
            stream = self.open()
            for batch in stream:
                yield from self.render(batch)
            yield self.finish()
            stream.drain()
        except ApiError as error:
            yield self.fail(error)
        except Exception:
            log.exception("unforeseen failure while a response was streamed")
            yield self.fail(internal_error())
        finally:
            self._close_stream()

    def body(self) -> ResponseBody:
        """Read the stream to its end and return the whole response, once it is recorded. Raises our exceptions."""
        try:
            stream = self.open()
            with self._refused_field_named():
                for batch in stream:
                    self._gather(batch)
            stream.drain()
        finally:
            self._close_stream()
        self._complete()
        return self.renderer.body()

    def _gather(self, batch: EventBatch) -> None:
        if batch.generated:
            self.exchange.note_first_token()
        if not self.renderer.gathers:
            self.exchange.read(batch)
            return
        for event in batch.events:
            self.exchange.read_event(event)
            self.renderer.gather(event)

    def relay_whole(self, get_body: Callable[[], JsonObject]) -> ResponseBody:
        """Return the response of an engine that is not asked for a stream, once it is recorded.

        Raises our exceptions.
        """
        with self._refused_field_named():
            body = cast("Completion", get_body())
        self.exchange.read_body(body)
        self.exchange.succeed()
        return self.renderer.convert(body)

    @contextlib.contextmanager
    def _refused_field_named(self) -> Iterator[None]:
        try:
            yield
        except ModelServerRefused as error:
            self._name_refused_field(error)
            raise

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
