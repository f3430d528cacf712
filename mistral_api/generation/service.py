"""The one way from a request to an answer: validate, check the model, relay, record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from mistral_api.errors import ApiError, ModelServerFailed, internal_error
from mistral_api.generation.asked import Asked
from mistral_api.generation.endpoints import Endpoint, upstream_payload, wants_usage
from mistral_api.generation.outcome import OpenExchange
from mistral_api.generation.prompts import Chats
from mistral_api.generation.streaming import StreamRelay
from mistral_api.identifiers import new_session_id
from mistral_api.inference.assembly import whole_body
from mistral_api.inference.catalogue import Catalogue
from mistral_api.inference.client import Answer, ModelServer
from mistral_api.inference.stream import EventStream
from mistral_api.recording.recorder import Recorder
from mistral_api.schemas import load
from mistral_api.supervisor.report_writer import ReportWriter


@dataclass(frozen=True, slots=True)
class Given:
    """The answer: a whole body, or a stream to be iterated and closed."""

    session_id: str
    body: dict[str, Any] | StreamRelay


class Generator:
    """Answers generation requests. One for the application; safe to use from many threads."""

    def __init__(
        self,
        server: ModelServer,
        catalogue: Catalogue,
        recorder: Recorder,
        reports: ReportWriter | None,
        chats: Chats,
    ) -> None:
        """``reports``: what a supervisor of ours is told, if there is one."""
        self._chats = chats
        self._reports = reports
        self._server = server
        self._catalogue = catalogue
        self._recorder = recorder

    def generate(self, endpoint: Endpoint, asked: Asked) -> Given:
        """Answer a request. Raises our exceptions; whatever happens, the exchange is recorded."""
        exchange = OpenExchange(self._recorder, self._reports, endpoint, asked)
        try:
            return self._generate(endpoint, asked, exchange)
        except ApiError as error:
            error.headers |= exchange.headers
            exchange.fail(error)
            raise
        except Exception:
            exchange.fail(internal_error())
            raise

    def _generate(self, endpoint: Endpoint, asked: Asked, exchange: OpenExchange) -> Given:
        payload = load(endpoint.schema, asked.body)
        self._catalogue.check(payload.get("model"))
        session_id = payload.get("session_id") or new_session_id()
        model = payload.get("model") or self._catalogue.default()
        recalled = self._chats.memory.recall(payload, asked.caller.owner) if endpoint.chat else None
        new, continues = (recalled.new, recalled.continues) if recalled else (endpoint.messages(payload), None)
        exchange.begin(payload, session_id, model, new, continues)
        ours = self._server.supervised
        sent = upstream_payload(payload, ours=ours, seed=exchange.seed)
        if endpoint.chat:
            sent["messages"] = self._chats.prompts.prompt(sent, recalled, payload.get("truncation"), asked.call)
        answer = self._server.generate(endpoint.path, sent, asked.call)
        if not ours and not payload.get("stream"):
            return Given(session_id, _whole(answer, exchange, session_id))
        stream = EventStream(answer, show_progress=bool(payload.get("return_progress")))
        if not payload.get("stream"):
            return Given(session_id, _assembled(stream, exchange, session_id, chat=endpoint.chat))
        return Given(session_id, _relay(stream, exchange, show_usage=wants_usage(payload)))


def _relay(stream: EventStream, exchange: OpenExchange, *, show_usage: bool) -> StreamRelay:
    """A stream that has begun: what fails before its first event is an HTTP error."""
    try:
        stream.wait_for_first()
    except BaseException:
        stream.close()
        raise
    return StreamRelay(stream, exchange, show_usage=show_usage)


def _assembled(stream: EventStream, exchange: OpenExchange, session_id: str, *, chat: bool) -> dict[str, Any]:
    """Read a stream to its end and make one answer of it, recorded before anyone sees it."""
    try:
        for events in stream:
            exchange.first_bytes()
            exchange.read(events)
    finally:
        stream.close()
    exchange.succeed()
    return whole_body(exchange.transcript, chat=chat) | {"session_id": session_id}


def _whole(answer: Answer, exchange: OpenExchange, session_id: str) -> dict[str, Any]:
    """Read another engine's answer that does not stream, recorded before anyone sees it."""
    try:
        body = _decoded(answer.read())
    finally:
        answer.close()
    exchange.transcript.add_body(body)
    exchange.succeed()
    body["session_id"] = session_id
    return body


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ModelServerFailed("The model server answered something that is not JSON.", summary="no JSON") from error
    if not isinstance(body, dict):
        raise ModelServerFailed("The model server answered something that is not a JSON object.", summary="no object")
    return body
