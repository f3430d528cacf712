"""The one way from a request to an answer: validate, check the model, relay, record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from mistral_api.conversations.resuming import Resumed
from mistral_api.errors import ModelServerRefused
from mistral_api.generation.asked import Asked
from mistral_api.generation.endpoints import CHAT, Endpoint, wants_usage
from mistral_api.generation.keeping import keep_completion
from mistral_api.generation.outcome import OpenExchange
from mistral_api.generation.places import name_place
from mistral_api.generation.planning import Engine, Plan, planned
from mistral_api.generation.prompts import Chats
from mistral_api.generation.streaming import StreamRelay
from mistral_api.identifiers import new_session_id
from mistral_api.inference.cancellation import Call
from mistral_api.inference.catalogue import Catalogue
from mistral_api.inference.client import Answer, ModelServer
from mistral_api.inference.reshaping.stream import ReshapedStream
from mistral_api.inference.stream import Runs
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
        ours = server.supervised
        self._engine = Engine(ours, lambda: ours or catalogue.is_llama_cpp(), server.slots)

    def generate(self, endpoint: Endpoint, asked: Asked) -> Given:
        """Answer a request. Raises our exceptions; whatever happens, the exchange is recorded."""
        exchange = self.exchange(endpoint, asked)
        with exchange.recorded():
            return self._generate(endpoint, asked, exchange)

    def exchange(self, endpoint: Endpoint, asked: Asked) -> OpenExchange:
        """The exchange of a request to an endpoint, open until it is told how it ended."""
        return OpenExchange(self._recorder, self._reports, endpoint.path, asked, endpoint.dialect.transcript)

    def served(self, model: str | None) -> str | None:
        """The model that answers, where it is known. Raises NotFound for one that is not served."""
        self._catalogue.check(model)
        return model or self._catalogue.default()

    def stream(self, payload: dict[str, Any], exchange: OpenExchange, call: Call) -> Runs:
        """The answer to a valid chat payload, streamed whatever the payload says. Raises our exceptions."""
        plan = self._planned(CHAT, payload | {"stream": True}, None, exchange, call)
        return self._streamed(CHAT, plan, call, show_progress=False)

    def _generate(self, endpoint: Endpoint, asked: Asked, exchange: OpenExchange) -> Given:
        payload = load(endpoint.schema, asked.body)
        model = self.served(payload.get("model"))
        session_id = payload.get("session_id") or new_session_id()
        if endpoint is CHAT and payload.get("store"):
            keep_completion(exchange, payload, session_id)
        recalled = self._chats.memory.recall(payload, asked.caller.owner) if endpoint.chat else None
        new, continues = (recalled.new, recalled.continues) if recalled else (endpoint.messages(payload), None)
        exchange.begin(payload, session_id, model, new, continues)
        plan = self._planned(endpoint, payload, recalled, exchange, asked.call)
        try:
            if not plan.streamed:
                answer = self._server.generate(endpoint.upstream or endpoint.path, plan.requests[0], asked.call)
                return Given(session_id, _whole(answer, exchange, session_id))
            show_progress = bool(payload.get("return_progress"))
            stream = self._streamed(endpoint, plan, asked.call, show_progress=show_progress)
            if not payload.get("stream"):
                return Given(session_id, _assembled(stream, exchange, session_id, endpoint))
            # What fails before the first event is an HTTP error.
            stream.wait_for_first()
            return Given(session_id, StreamRelay(stream, exchange, show_usage=wants_usage(payload)))
        except ModelServerRefused as error:
            name_place(error, cast("dict[str, Any]", asked.body), forced=plan.forced is not None)
            raise

    def _planned(
        self, endpoint: Endpoint, payload: dict[str, Any], recalled: Resumed | None, exchange: OpenExchange, call: Call
    ) -> Plan:
        if endpoint.chat:
            messages = self._chats.prompts.prompt(payload, recalled, payload.get("truncation"), call)
            payload = payload | {"messages": messages}
        return planned(endpoint, payload, self._engine, exchange.seed, partial(self._ask, call))

    def _streamed(self, endpoint: Endpoint, plan: Plan, call: Call, *, show_progress: bool) -> Runs:
        """The answer's stream. A request that is one of several is sent when the one before has been answered."""
        path = endpoint.upstream or endpoint.path
        streams = (
            endpoint.dialect.stream(self._server.generate(path, sent, call), show_progress=show_progress)
            for sent in plan.requests
        )
        return ReshapedStream(streams, plan.stages) if plan.stages else next(streams)

    def _ask(self, call: Call, path: str, question: dict[str, Any]) -> Any:
        """A question that a request needs answered first."""
        return self._server.generate(path, question, call).decoded_object()


def _assembled(stream: Runs, exchange: OpenExchange, session_id: str, endpoint: Endpoint) -> dict[str, Any]:
    """Read a stream to its end and make one answer of it, recorded before anyone sees it."""
    try:
        for events in stream:
            exchange.first_bytes()
            exchange.read(events)
    finally:
        stream.close()
    exchange.succeed()
    return endpoint.dialect.whole(exchange.transcript, chat=endpoint.chat) | {"session_id": session_id}


def _whole(answer: Answer, exchange: OpenExchange, session_id: str) -> dict[str, Any]:
    """Read another engine's answer that does not stream, recorded before anyone sees it."""
    body = answer.decoded_object()
    exchange.transcript.add_body(body)
    exchange.succeed()
    body["session_id"] = session_id
    return body
