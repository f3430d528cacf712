"""One response while it is generated: from the model server's chunks to events, and to the record."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from mistral_api.errors import ApiError, ModelServerRefused, internal_error
from mistral_api.generation.exchange_record import ExchangeOutcome, ExchangeRecord
from mistral_api.responses.preparation import PreparedResponse
from mistral_api.responses.response_object import Response
from mistral_api.responses.stored_responses import CachedResponse, ResponseCache
from mistral_api.responses.stream_events import Event, ResponseEvents
from mistral_api.upstream.errors import ClientClosedRequest
from mistral_api.upstream.sse import SSEStream
from mistral_api.wire.payload_types import ChatMessage

log = logging.getLogger(__name__)

_OPEN = ("queued", "in_progress")
# What the fields of a chat completion are called here.
_NAMES = {"messages": "input", "response_format": "text.format", "max_completion_tokens": "max_output_tokens"}


@contextlib.contextmanager
def _in_terms_of_responses() -> Iterator[None]:
    """Have refusals name the field of the Responses request."""
    try:
        yield
    except ModelServerRefused as error:
        field = re.split(r"[.\[]", error.param or "")[0]
        error.param = _NAMES.get(field, error.param)
        raise


class ResponseRun:
    """The generation of one response. For one thread at a time, but for :attr:`response`."""

    def __init__(self, prepared: PreparedResponse, exchange: ExchangeRecord, ask: Callable[[], SSEStream]) -> None:
        """``ask`` sends the request to the model server. The exchange is not begun yet."""
        self.events = ResponseEvents(prepared.opened, prepared.answer_id)
        self._prepared = prepared
        self._exchange = exchange
        self._ask = ask
        self._stream: SSEStream | None = None

    def begin(self, payload: dict[str, Any], recent: ResponseCache) -> None:
        """Have the response journaled, and kept when it has ended. Raises Unavailable (``recording_unavailable``)."""
        prepared, record = self._prepared, self._exchange.record
        record.message_ids, record.answer_id = prepared.input_ids, prepared.answer_id
        self._exchange.store_as(prepared.storing(), lambda ending: self._kept(ending, recent))
        context = prepared.context
        continues = None if prepared.in_conversation else context.continues
        self._exchange.begin(payload, context.session_id, prepared.opened["model"], prepared.input, continues)

    @property
    def response(self) -> Response:
        """The Response object as it is now."""
        return self.events.response

    @property
    def asked(self) -> list[tuple[UUID, ChatMessage]]:
        """The messages of its input, and the ids they are stored under."""
        return list(zip(self._prepared.input_ids, self._prepared.input, strict=True))

    def open(self) -> SSEStream:
        """Wait for the answer to begin: what fails before is not part of it. Raises our exceptions."""
        with _in_terms_of_responses():
            self._stream = self._ask()
            self._stream.wait_for_first()
        return self._stream

    def answered(self) -> Iterator[Event]:
        """The events of the answer; the last one when the response is recorded. Raises our exceptions."""
        stream = self.open() if self._stream is None else self._stream
        try:
            for events in stream:
                self._exchange.first_bytes()
                for chunk in self._exchange.read(events):
                    yield from self.events.chunk(chunk)
        finally:
            stream.close()
        closing = self.events.complete()
        self._exchange.succeed()
        yield from closing

    def told(self) -> Iterator[Event]:
        """The events of the answer, a failure among them."""
        try:
            yield from self.answered()
        except ApiError as error:
            yield from self.fail(error)
        except Exception:
            log.exception("unforeseen failure while generating a response")
            yield from self.fail(internal_error())

    def fail(self, error: ApiError) -> list[Event]:
        """End the response: cancelled where its client gave it up, else failed."""
        if self.response["status"] not in _OPEN:
            return []
        gave_up = isinstance(error, ClientClosedRequest)
        events = self.events.cancel() if gave_up else self.events.fail(error)
        self._exchange.fail(error)
        return events

    def close(self) -> None:
        """Nobody listens any more: before its end the response is cancelled."""
        self.fail(ClientClosedRequest("The client closed the connection."))
        if self._stream is not None:
            self._stream.close()

    def _kept(self, ending: ExchangeOutcome, recent: ResponseCache) -> Response | None:
        """The response as it is stored; one that failed before it was shown to anybody is none."""
        if self.response["status"] in _OPEN:
            return None
        prepared, record = self._prepared, self._exchange.record
        answer = ending.transcript.choices.get(0) if record.answers else None
        kept = CachedResponse(
            record.owner, prepared.context.session_id, self.response, prepared.input_ids, record.messages or [],
            prepared.answer_id if answer else None, answer.answer if answer else None,
            in_chain=not prepared.in_conversation,
        )  # fmt: skip
        recent.add(kept)
        return self.response
