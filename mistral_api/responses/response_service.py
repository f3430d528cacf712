"""The Responses API: what a response continues, its generation, and its later life under its id."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from uuid import UUID

import orjson

from mistral_api.constraints.gate import AdmittedConstraints
from mistral_api.conversations.session_resolver import SessionResolver
from mistral_api.errors import InvalidRequest, ModelServerRefused, NotFound
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.exchange_record import ExchangeRecord
from mistral_api.generation.generator import Generator
from mistral_api.generation.ignored_tools import ignored_types
from mistral_api.generation.plan import PlanRequest
from mistral_api.generation.planned_answer import PlannedAnswer
from mistral_api.generation.refused_field import name_refused_field
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.grammars.request_budget import request_budget
from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.payload_types.responses import Item, Response, ResponsePayload
from mistral_api.responses.background import BackgroundRunner
from mistral_api.responses.background_response import BackgroundResponse
from mistral_api.responses.context_resolver import ContextResolver
from mistral_api.responses.prepared_response import (
    PreparedResponse,
    parse_input_items,
    prepare_response,
    sent_messages,
)
from mistral_api.responses.response_renderer import OPEN_STATUSES
from mistral_api.responses.response_run import ResponseRun
from mistral_api.responses.response_store import ResponseStore
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.sse import SSEStream
from mistral_api.wire import load
from mistral_api.wire.response_tools import is_hosted
from mistral_api.wire.responses import InputTokensRequest, ResponseRequest

_REQUEST, _COUNT_REQUEST = ResponseRequest(), InputTokensRequest()
_PATH = "/v1/responses"
# How long a cancelled response may take to end before its client is told what it is now.
CANCEL_SECONDS = 5.0


class ResponseService:
    """Answers requests of the Responses API. One for the application; safe to use from many threads."""

    def __init__(
        self,
        generator: Generator,
        sessions: SessionResolver,
        store: ResponseStore,
        contexts: ContextResolver,
        background: BackgroundRunner,
    ) -> None:
        self._generator = generator
        self._sessions = sessions
        self._store = store
        self._contexts = contexts
        self._background = background

    @request_budget()
    def plan(self, request: RequestContext) -> PlannedAnswer:
        """Return what answers a request. Raises our exceptions; whatever happens, the exchange is recorded."""
        exchange = self._generator.exchange(_PATH, request)
        with exchange.failures_recorded():
            payload = load(_REQUEST, request.body)
            if not payload.get("background"):
                self._generator.require_room()
            request.require_slot_choice(payload)
            if not exchange.record.stores_text and not payload.get("background"):
                payload["store"] = False
            call = UpstreamCall() if payload.get("background") else request.call
            prepared = self._prepare(payload, request, request.request_id)
            exchange.use_constraints(self._admit(prepared, request), call)
            if payload.get("background"):
                return self._respond_in_background(prepared, exchange, request, call)
            chat_payload = self._chat_payload(prepared, request.call)
            run, plan = self._begin(prepared, exchange, chat_payload, request.call)
            plan()  # here, and not in the event loop: it grows with the request
        streams, ignored = bool(payload.get("stream")), _ignored_tools(payload)
        make = run.begin_stream if streams else run.complete
        session_id = prepared.context.session_id
        return PlannedAnswer(session_id, exchange, make, call, run.pipeline, streams=streams, ignored_tools=ignored)

    def _respond_in_background(
        self, prepared: PreparedResponse, exchange: RunningExchange, request: RequestContext, call: UpstreamCall
    ) -> PlannedAnswer:
        """Have the response generated while its client does something else, or follows it."""
        _require_stored_text(exchange.record)
        call.promised = True
        chat_payload = self._chat_payload(prepared, call)
        size = len(orjson.dumps(chat_payload))
        self._background.require_room(size)
        owner = request.caller.owner
        run, _ = self._begin(prepared, exchange, chat_payload, call)
        live = BackgroundResponse(owner, run, call, size)
        queued = live.response.copy()  # as it is before its generation begins
        exchange.outlive_response()
        self._background.add(live)
        follow = bool(prepared.request.get("stream"))
        session_id, ignored = prepared.context.session_id, _ignored_tools(prepared.request)
        make = partial(live.follow) if follow else lambda: queued
        return PlannedAnswer(session_id, exchange, make, request.call, ignored_tools=ignored)

    def _chat_payload(self, prepared: PreparedResponse, call: UpstreamCall) -> ChatPayload:
        return prepared.payload(self._contexts.fit(prepared, call))

    def _begin(
        self,
        prepared: PreparedResponse,
        exchange: RunningExchange,
        chat_payload: ChatPayload,
        call: UpstreamCall,
    ) -> tuple[ResponseRun, Callable[[], object]]:
        """Return the run of a response, which is journaled, and what plans it where it is not planned at its opening.

        What plans it raises our exceptions.
        """
        seed = self._generator.slot_seed(chat_payload, exchange)
        wanted = PlanRequest(chat_payload, seed, prepared.tools.catalogue)
        plan = cache(partial(self._generator.plan_chat, wanted, exchange, call))

        def open_stream() -> SSEStream:
            return plan()()

        run = ResponseRun(prepared, exchange, open_stream)
        run.begin(self._store.cache)
        return run, plan

    def _prepare(
        self, payload: ResponsePayload, request: RequestContext, exchange_id: UUID | None = None
    ) -> PreparedResponse:
        """Return what a request asks for. ``exchange_id`` is there for one that is going to be answered."""
        model = self._generator.served_model(payload.get("model"))
        self._require_ended(request.caller.owner, payload.get("previous_response_id", ""))
        items = self._contexts.resolve_references(parse_input_items(payload), request.caller.owner)
        context = self._resolve_context(payload, request, items, exchange_id)
        return prepare_response(payload, items, context, model or "")

    def _admit(self, prepared: PreparedResponse, request: RequestContext) -> AdmittedConstraints:
        return self._generator.admit(request, prepared.loaded, forced=prepared.tools.forces_call)

    def _resolve_context(
        self, payload: ResponsePayload, request: RequestContext, items: list[Item], exchange_id: UUID | None
    ) -> StoredContext:
        """Return what a request continues, by what it says or by what it sends."""
        owner, sent = request.caller.owner, sent_messages(payload, items)
        named = self._contexts.named_context(payload, owner)
        session_id = named.session_id if named else None
        resolved = self._sessions.resolve(request.sender, session_id, sent, exchange_id)
        return replace(named or self._contexts.found_context(resolved, owner, sent), resolved=resolved)

    def _require_ended(self, owner: str, response_id: str) -> None:
        """Raise InvalidRequest for a response that is still being generated. The end of its recording is waited for."""
        live = self._background.find(owner, response_id)
        if live is None or live.ended:
            return
        if live.response["status"] in OPEN_STATUSES or not live.wait(CANCEL_SECONDS):
            raise InvalidRequest(
                f"Previous response with id '{response_id}' is {live.response['status']}: wait for its end.",
                code="invalid_value",
                param="previous_response_id",
            )

    @request_budget()
    def count_input_tokens(self, request: RequestContext) -> int:
        """Return how many tokens the prompt of a request has. Raises our exceptions."""
        payload = load(_COUNT_REQUEST, request.body)
        prepared = self._prepare(payload, request)
        self._admit(prepared, request)
        try:
            return self._contexts.count_tokens(prepared, request.call)
        except ModelServerRefused as error:
            name_refused_field(error, request.body)
            raise

    def find(self, owner: str, response_id: str) -> Response:
        """Return the Response object as it is now. Raises NotFound and Unavailable."""
        live = self._background.find(owner, response_id)
        return live.response if live is not None else self._stored(owner, response_id)

    def _stored(self, owner: str, response_id: str) -> Response:
        """Return a response that has ended. Raises NotFound and Unavailable."""
        with self._known_end(owner, response_id):
            return self._store.find(owner, response_id)

    @contextlib.contextmanager
    def _known_end(self, owner: str, response_id: str) -> Iterator[None]:
        """Raise Unavailable in place of NotFound while it is not recorded how a response ended with its process."""
        try:
            yield
        except NotFound:
            self._background.require_known(owner, response_id)
            raise

    def input(self, owner: str, response_id: str) -> list[tuple[UUID, ChatMessage]]:
        """Return the messages of a response's input, and their ids. Raises NotFound and Unavailable."""
        live = self._background.find(owner, response_id)
        messages = live.input if live is not None else None
        if messages is not None:
            return messages
        with self._known_end(owner, response_id):
            return self._store.input_messages(owner, response_id)

    def follow(self, owner: str, response_id: str, after: int) -> Iterator[bytes]:
        """Return the events of a response in the background after a sequence number.

        Raises NotFound and InvalidRequest.
        """
        live = self._background.find(owner, response_id)
        if live is not None:
            return live.follow(after)
        self._stored(owner, response_id)
        raise InvalidRequest(
            "This response cannot be streamed: only those made with 'background' can, and only while this server "
            "remembers their events.",
            code="invalid_value",
            param="stream",
        )

    def cancel(self, owner: str, response_id: str) -> Response:
        """End a response in the background; one that has ended already stays as it is.

        Raises NotFound, and InvalidRequest for a response that was not made in the background.
        """
        live = self._background.find(owner, response_id)
        if live is None:
            response = self._stored(owner, response_id)
            if not response.get("background"):
                raise InvalidRequest("Cannot cancel a synchronous response.", param="response_id")
            return response
        live.cancel()
        live.wait(CANCEL_SECONDS)
        return live.response

    def delete(self, owner: str, response_id: str) -> list[str]:
        """Delete a response, also one that is being generated. Return the session ids of what was deleted with it.

        Raises NotFound and Unavailable.
        """
        live = self._background.find(owner, response_id)
        if live is not None:
            live.cancel()
            live.wait(CANCEL_SECONDS)
            self._background.forget(response_id)
        return self._store.delete(owner, response_id)

    def forget(self, response_id: str) -> None:
        """Drop from memory a response that was deleted."""
        self._background.forget(response_id)
        self._store.cache.remove(response_id)

    def forget_session(self, owner: str, session_id: str) -> None:
        """Drop from memory what belongs to a conversation that was changed or deleted."""
        self._background.forget_session(owner, session_id)
        self._store.cache.remove_session(owner, session_id)

    def forget_before(self, moment: float) -> None:
        """Drop from memory the responses that were made before a moment in Unix seconds."""
        self._background.forget_before(moment)
        self._store.cache.remove_before(moment)

    def close_queue(self) -> None:
        """Fail the responses in the background whose generation has not begun; take no more of them."""
        self._background.close_queue()

    def close(self) -> None:
        """End the responses in the background."""
        self._background.close()


def _ignored_tools(request: ResponsePayload) -> tuple[str, ...]:
    """Return the types of the tools of a valid request that only OpenAI can run."""
    return ignored_types("OpenAI", (tool["type"] for tool in request.get("tools", []) if is_hosted(tool)))


def _require_stored_text(record: ExchangeRecord) -> None:
    """Raise InvalidRequest where no text is stored: a response in the background is generated to be fetched later."""
    if not record.stores_text:
        raise InvalidRequest(
            "'background' needs stored responses, and this server keeps no text (STORE_CONTENT=false).",
            code="not_supported",
            param="background",
        )
