"""Relaying a stream: the model server's bytes go out as they come, and are read for the record after."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mistral_api.errors import ApiError, ModelServerError, error_event, internal_error
from mistral_api.generation.outcome import OpenExchange
from mistral_api.inference.client import Answer
from mistral_api.inference.events import DONE, EventSplitter, event_data, event_error, split_events
from mistral_api.inference.translation import ClientClosedRequest, error_from

log = logging.getLogger(__name__)


class StreamRelay:
    """The body of a streaming response. Closing it early frees the model server's slot."""

    def __init__(self, answer: Answer, exchange: OpenExchange, *, show_usage: bool) -> None:
        self._answer = answer
        self._exchange = exchange
        self._show_usage = show_usage

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._relay()
        except ApiError as error:
            self._exchange.fail(error)
            yield error_event(error)
        except Exception:
            log.exception("unforeseen failure while relaying a stream")
            self._exchange.fail(internal_error())
            yield error_event(internal_error())
        finally:
            self._answer.close()

    def _relay(self) -> Iterator[bytes]:
        """Whole events only, so that an error event never lands inside another event.

        What is sent is read for the record while the next bytes are on their way. Only the closing
        ``[DONE]`` waits for the record: whoever has seen it finds the exchange recorded.
        """
        splitter = EventSplitter()
        for piece in self._answer.chunks():
            self._exchange.first_bytes()
            events = splitter.feed(piece)
            if not events:
                continue
            if DONE in events or b'"usage"' in events or b"error" in events:
                yield from self._relay_one_by_one(events)
            else:
                yield events
                self._read(events)
        if not self._exchange.ended:
            raise ModelServerError("The model server broke off its answer.")

    def _relay_one_by_one(self, events: bytes) -> Iterator[bytes]:
        """The rarer events: an error ends the stream, usage may not be meant for the client."""
        for event in split_events(events):
            self._check(event)
            if event.startswith(DONE):
                self._exchange.succeed()
                yield event + b"\n\n"
                return
            self._read(event)
            if self._show_usage or not _is_usage_only(event):
                yield event + b"\n\n"

    def _check(self, event: bytes) -> None:
        error = event_error(event)
        if error is not None:
            code = error.get("code")
            raise error_from(code if isinstance(code, int) and 400 <= code < 600 else 500, error)

    def _read(self, events: bytes) -> None:
        for event in split_events(events):
            data = event_data(event)
            if isinstance(data, dict):
                self._exchange.transcript.add_chunk(data)

    def close(self) -> None:
        """Called by the WSGI server, whatever happened: before the end it means that the client left."""
        self._exchange.fail(ClientClosedRequest("The client closed the connection."))
        self._answer.close()


def _is_usage_only(event: bytes) -> bool:
    data = event_data(event)
    return isinstance(data, dict) and data.get("choices") == []
