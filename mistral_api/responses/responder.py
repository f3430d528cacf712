"""The Responses API: what a response goes on from, its generation by the model server, what is kept of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from mistral_api.errors import InvalidRequest
from mistral_api.generation.endpoint import CHAT, Endpoint, RequestContext
from mistral_api.generation.exchange_record import ExchangeRecord
from mistral_api.generation.generator import Generator
from mistral_api.responses.background import BackgroundRunner, LiveResponse
from mistral_api.responses.context_resolver import ContextResolver
from mistral_api.responses.preparation import PreparedResponse, parse_input_items, prepare_response
from mistral_api.responses.response_object import Response
from mistral_api.responses.response_run import ResponseRun
from mistral_api.responses.response_store import InputMessages as Input
from mistral_api.responses.response_store import ResponseStore
from mistral_api.responses.stream_events import encoded
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.wire import load
from mistral_api.wire.responses import InputTokensRequest, ResponseRequest

# Answered as a chat completion is.
RESPONSES = Endpoint("/v1/responses", True, ResponseRequest(), CHAT.messages)
_COUNTED = InputTokensRequest()
# How long a cancelled response may take to end before its client is told what it is now.
CANCEL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ResponseResult:
    """The answer to a request for a response: the object, or its events as they come."""

    session_id: str
    body: Response | Iterable[bytes]


class EventBody:
    """The body of a response that streams. Closing it early frees the model server's slot."""

    def __init__(self, run: ResponseRun) -> None:
        self._run = run

    def __iter__(self) -> Iterator[bytes]:
        for event in self._run.events.begin():
            yield encoded(event)
        for event in self._run.told():
            yield encoded(event)

    def close(self) -> None:
        """Called by the WSGI server, whatever happened: before the end it means that the client left."""
        self._run.close()


class ResponseService:
    """Answers requests of the Responses API. One for the application; safe to use from many threads."""

    def __init__(
        self, generator: Generator, store: ResponseStore, contexts: ContextResolver, background: BackgroundRunner
    ) -> None:
        self._generator = generator
        self._store = store
        self._contexts = contexts
        self._background = background

    def respond(self, asked: RequestContext) -> ResponseResult:
        """Answer a request. Raises our exceptions; whatever happens, the exchange is recorded."""
        exchange = self._generator.exchange(RESPONSES, asked)
        with exchange.recorded():
            request = load(RESPONSES.schema, asked.body)
            if not exchange.may_keep_text and not request.get("background"):
                request["store"] = False
            ready = self._prepare(request, asked)
            if ready.request.get("background"):
                return self._in_background(ready, exchange, asked)
            run = self._begun(ready, exchange, self._payload(ready, asked.call), asked.call)
            run.open()
            body = EventBody(run) if ready.request.get("stream") else _whole(run)
            return ResponseResult(ready.context.session_id, body)

    def _in_background(
        self, ready: PreparedResponse, exchange: ExchangeRecord, asked: RequestContext
    ) -> ResponseResult:
        """Have the response generated while its client does something else, or follows it."""
        _require_text_is_kept(exchange)
        call = UpstreamCall()
        payload = self._payload(ready, call)
        size = len(orjson.dumps(payload))
        self._background.require_room(size)
        live = LiveResponse(asked.caller.owner, self._begun(ready, exchange, payload, call), call, size)
        queued = live.response
        self._background.add(live)
        return ResponseResult(ready.context.session_id, live.follow() if ready.request.get("stream") else queued)

    def _payload(self, ready: PreparedResponse, call: UpstreamCall) -> dict[str, Any]:
        return ready.payload(self._contexts.fitted(ready, call))

    def _begun(
        self, ready: PreparedResponse, exchange: ExchangeRecord, payload: dict[str, Any], call: UpstreamCall
    ) -> ResponseRun:
        """The run of a response that is journaled."""
        run = ResponseRun(ready, exchange, partial(self._generator.stream, payload, exchange, call))
        run.begin(payload | {"store": ready.opened["store"]}, self._store.cache)
        return run

    def _prepare(self, request: dict[str, Any], asked: RequestContext) -> PreparedResponse:
        model = self._generator.served(request.get("model"))
        self._require_ended(asked.caller.owner, request.get("previous_response_id", ""))
        context = self._contexts.of(request, asked.caller.owner)
        items = self._contexts.items(parse_input_items(request), asked.caller.owner)
        return prepare_response(request, items, context, model or "")

    def _require_ended(self, owner: str, response_id: str) -> None:
        """Raise InvalidRequest for a response that has no answer yet to go on from."""
        live = self._background.find(owner, response_id)
        if live is not None and not live.ended:
            raise InvalidRequest(
                f"Previous response with id '{response_id}' is {live.response['status']}: wait for its end.",
                code="invalid_value",
                param="previous_response_id",
            )

    def count(self, asked: RequestContext) -> int:
        """How many tokens the model would have to read. Raises our exceptions."""
        ready = self._prepare(load(_COUNTED, asked.body), asked)
        return self._contexts.count(ready, asked.call)

    def find(self, owner: str, response_id: str) -> Response:
        """The Response object as it is now. Raises NotFound and Unavailable."""
        live = self._background.find(owner, response_id)
        return live.response if live is not None else self._store.find(owner, response_id)

    def input(self, owner: str, response_id: str) -> Input:
        """The messages a response was asked with, and their ids. Raises NotFound and Unavailable."""
        live = self._background.find(owner, response_id)
        asked = live.asked if live is not None else None
        return self._store.input_messages(owner, response_id) if asked is None else asked

    def follow(self, owner: str, response_id: str, after: int) -> Iterator[bytes]:
        """The events of a response in the background, after a sequence number. Raises NotFound and InvalidRequest."""
        live = self._background.find(owner, response_id)
        if live is not None:
            return live.follow(after)
        self._store.find(owner, response_id)
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
            response = self._store.find(owner, response_id)
            if not response.get("background"):
                raise InvalidRequest("Cannot cancel a synchronous response.", param="response_id")
            return response
        live.cancel()
        live.wait(CANCEL_SECONDS)
        return live.response

    def delete(self, owner: str, response_id: str) -> str | None:
        """Delete a response, one that is being generated too; answers the session that went with it, if one did.

        Raises NotFound and Unavailable.
        """
        live = self._background.find(owner, response_id)
        if live is not None:
            live.cancel()
            live.wait(CANCEL_SECONDS)
            self._background.forget(response_id)
        return self._store.delete(owner, response_id)

    def forget_session(self, owner: str, session_id: str) -> None:
        """Have what is in memory of a conversation go: it was changed or deleted."""
        self._background.forget_session(owner, session_id)
        self._store.cache.remove_session(owner, session_id)

    def forget_before(self, moment: float) -> None:
        """Have what was answered before, in Unix seconds, go from memory."""
        self._background.forget_before(moment)
        self._store.cache.remove_before(moment)

    def close_queue(self) -> None:
        """Responses in the background that have not begun never will: each is recorded as failed."""
        self._background.close_queue()

    def close(self) -> None:
        """End what is still being generated in the background."""
        self._background.close()


def _require_text_is_kept(exchange: ExchangeRecord) -> None:
    """What is generated while nobody waits is there to be fetched later."""
    if not exchange.may_keep_text:
        raise InvalidRequest(
            "'background' needs stored responses, and this server keeps no text (STORE_CONTENT=false).",
            code="not_supported",
            param="background",
        )


def _whole(run: ResponseRun) -> Response:
    for _ in run.answered():
        pass
    return run.response
