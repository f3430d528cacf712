"""Relaying a stream: the model server's bytes go out as they come, and are read for the record after."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mistral_api.errors import ApiError, error_event, internal_error
from mistral_api.generation.exchange_record import ExchangeRecord
from mistral_api.upstream.errors import ClientClosedRequest
from mistral_api.upstream.sse import DONE, SSEStream, event_data, split_events

log = logging.getLogger(__name__)


class GenerationPipeline:
    """The body of a streaming response. Closing it early frees the model server's slot."""

    def __init__(self, stream: SSEStream, exchange: ExchangeRecord, *, show_usage: bool) -> None:
        self._stream = stream
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
            self._stream.close()

    def _relay(self) -> Iterator[bytes]:
        """What is sent is read for the record while the next bytes are on their way.

        Only the closing ``[DONE]`` waits for the record: whoever has seen it finds the exchange recorded.
        """
        for events in self._stream:
            self._exchange.first_bytes()
            if events.startswith(DONE):
                self._exchange.succeed()
                yield events
            elif b'"usage"' in events and not self._show_usage:
                yield from self._without_usage(events)
            else:
                yield events
                self._exchange.read(events)

    def _without_usage(self, events: bytes) -> Iterator[bytes]:
        """A chunk that carries nothing but the usage is not for a client that did not ask for it."""
        self._exchange.read(events)
        for event in split_events(events):
            data = event_data(event)
            if not (isinstance(data, dict) and data.get("choices") == []):
                yield event + b"\n\n"

    def close(self) -> None:
        """Called by the WSGI server, whatever happened: before the end it means that the client left."""
        self._exchange.fail(ClientClosedRequest("The client closed the connection."))
        self._stream.close()
