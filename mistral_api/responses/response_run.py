"""One response while it is generated: its pipeline, its renderer, and the object that is stored of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import UUID

from mistral_api.conversations.session_resolver import ResolvedSession
from mistral_api.generation.exchange_record import ExchangeOpening, ExchangeOutcome
from mistral_api.generation.pipeline import GenerationPipeline
from mistral_api.generation.refused_field import name_refused_field
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import Response
from mistral_api.responses.prepared_response import PreparedResponse
from mistral_api.responses.response_cache import CachedResponse, EncodedResponse, ResponseCache
from mistral_api.responses.response_renderer import ResponseRenderer
from mistral_api.upstream.sse import SSEStream


class ResponseRun:
    """The generation of one response. For one thread at a time, except for :attr:`response`."""

    def __init__(
        self, prepared: PreparedResponse, exchange: RunningExchange, open_stream: Callable[[], SSEStream]
    ) -> None:
        """``open_stream`` sends the request to the model server. The exchange has not begun yet."""
        self._prepared = prepared
        self._exchange = exchange
        self.renderer = ResponseRenderer(exchange.transcript, prepared)
        name_field = partial(name_refused_field, body=prepared.request)
        self.pipeline = GenerationPipeline(exchange, self.renderer, open_stream, name_field)

    def begin(self, cache: ResponseCache) -> None:
        """Journal the response, and have it stored at its end. Raises Unavailable (``recording_unavailable``)."""
        prepared, record = self._prepared, self._exchange.record
        record.exchange.message_ids, record.exchange.answer_id = prepared.input_ids, prepared.answer_id
        record.store_as(prepared.storing(), lambda outcome: self._stored_response(outcome, cache))
        context = prepared.context
        resolved = context.resolved or ResolvedSession(session_id=context.session_id)
        self._exchange.begin(
            ExchangeOpening(
                messages=prepared.input,
                session_id=context.session_id,
                model=prepared.response["model"],
                continues=None if prepared.in_conversation else context.continues,
                stream=bool(prepared.request.get("stream")),
                store=prepared.response["store"] is not False,
                client=resolved.client,
                resends_history=resolved.resends_history,
                side_request=resolved.side_request,
                is_new_session=resolved.is_new,
            )
        )

    @property
    def response(self) -> Response:
        """The Response object as it is now."""
        return self.renderer.response

    def begin_stream(self) -> GenerationPipeline:
        """Return the events of the response, once the model server has begun to answer. Raises our exceptions."""
        self.pipeline.open()
        return self.pipeline

    def complete(self) -> Response:
        """Generate the whole response, and return it once it is recorded. Raises our exceptions."""
        self.pipeline.body()
        return self.response

    @property
    def input(self) -> list[tuple[UUID, ChatMessage]]:
        """The messages of its input, and the ids that they are stored under."""
        return list(zip(self._prepared.input_ids, self._prepared.input, strict=True))

    def _stored_response(self, outcome: ExchangeOutcome, cache: ResponseCache) -> Response | None:
        """Return the response as it is stored. One that failed before anybody saw it is not stored."""
        if not self.renderer.ended:
            return None
        prepared, exchange = self._prepared, self._exchange.record.exchange
        choice = outcome.transcript.choices.get(0) if exchange.answers else None
        cache.add(
            CachedResponse(
                exchange.owner,
                prepared.context.session_id,
                EncodedResponse.of(self.response),
                prepared.input_ids,
                exchange.messages or [],
                prepared.answer_id if choice else None,
                choice.answer if choice else None,
                in_chain=not prepared.in_conversation,
                resends_history=exchange.resends_history,
            )
        )
        return self.response
