"""The renderer of the Responses API: typed events, or the Response object."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from mistral_api.errors import ApiError
from mistral_api.generation.renderer import Renderer
from mistral_api.payload_types.responses import Response, ResponseEvent
from mistral_api.responses.prepared_response import PreparedResponse
from mistral_api.responses.stream_events import ResponseEvents
from mistral_api.upstream.errors import ClientClosedRequest
from mistral_api.upstream.sse import StreamEvent
from mistral_api.upstream.transcript import Transcript

OPEN_STATUSES = ("queued", "in_progress")


class ResponseRenderer(Renderer):
    """The events of one response, or the whole Response object."""

    gathers = True

    def __init__(self, transcript: Transcript, prepared: PreparedResponse) -> None:
        # Nothing is rendered of a chat request: the Response object repeats what the client sent.
        super().__init__(transcript, {}, prepared.context.session_id)
        self._events = ResponseEvents(
            prepared.response, prepared.answer_id, transcript, encrypted_reasoning=prepared.encrypted_reasoning
        )
        self._closing: list[ResponseEvent] = []

    @property
    def response(self) -> Response:
        """The Response object as it is now."""
        return self._events.response

    @property
    def ended(self) -> bool:
        """Whether the Response object is in its final state."""
        return self.response["status"] not in OPEN_STATUSES

    def first_events(self) -> bytes:
        return _encoded(self._events.begin())

    def start(self) -> bytes:
        """Return the event that the generation of a queued response has begun."""
        return _encoded(self._events.start())

    def event(self, event: StreamEvent) -> bytes:
        return b"" if event.data is None else _encoded(self._events.chunk(event.data))

    def gather(self, event: StreamEvent) -> None:
        if event.data is not None:
            self._events.chunk(event.data)

    def complete(self) -> None:
        self._closing = self._events.complete()

    def closing(self) -> bytes:
        return _encoded(self._closing)

    def failure(self, error: ApiError) -> bytes:
        """The response is cancelled where its client gave it up, else failed."""
        if self.ended:
            return b""
        given_up = isinstance(error, ClientClosedRequest)
        return _encoded(self._events.cancel() if given_up else self._events.fail(error))

    def body(self) -> Response:
        return self.response


def _encoded(events: Iterable[ResponseEvent]) -> bytes:
    """Return events as server-sent events, each named by its type."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)
