"""The one way from a request to a response: validate, plan, run, record.

Where in the request it is what the model server refused: llama.cpp does not say.

The one way from a request to an answer: validate, check the model, relay, record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from mistral_api.control.feedback import FeedbackWriter
from mistral_api.conversations.history import ContinuedSession
from mistral_api.errors import ModelServerRefused
from mistral_api.generation.endpoint import CHAT, Endpoint, RequestContext, wants_usage
from mistral_api.generation.exchange_record import ExchangeRecord
from mistral_api.generation.pipeline import GenerationPipeline
from mistral_api.generation.plan import GenerationPlan, UpstreamTraits, make_plan
from mistral_api.generation.prompt import Chats
from mistral_api.generation.stages import StagedStream
from mistral_api.generation.stored_completion import store_completion
from mistral_api.recording.recorder import Recorder
from mistral_api.system.identifiers import new_session_id
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.catalogue import Catalogue
from mistral_api.upstream.client import ModelServerClient, UpstreamResponse
from mistral_api.upstream.sse import SSEStream
from mistral_api.wire import load

_KIND = re.compile(r"(image|audio|video) input is not supported")
_KINDS = {"image": ("image_url", "image"), "audio": ("input_audio",), "video": ("video_url", "input_video")}
# What no model behind llama.cpp takes (its words: "unsupported content[].type").
_NEVER = ("file", "refusal")


# Where the schema of an answer stands, in OpenAI's requests, llama.cpp's and Anthropic's.
_SCHEMAS = ("response_format", "json_schema", "output_config")


def add_error_param(error: ModelServerRefused, body: dict[str, Any], *, forced: bool) -> None:
    """Complete a refusal with the place in the client's own ``body``; ``forced``: a schema that was refused is that
    of the tools."""
    if error.code == "invalid_json_schema":
        given = () if forced else (name for name in _SCHEMAS if body.get(name) is not None)
        error.param = next(iter(given), "tools")
    if error.code != "unsupported_value" or "messages" not in body:
        return
    kind = _KIND.match(error.message)
    types = _KINDS[kind[1]] if kind else _NEVER
    place = _first_part(body["messages"], types)
    if place is not None:
        error.param, found = place
        error.message = f"Unsupported value for '{error.param}': the model served takes no parts of type '{found}'."


def _first_part(messages: list[dict[str, Any]], types: tuple[str, ...]) -> tuple[str, str] | None:
    for number, message in enumerate(messages):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] in types:
                return f"messages[{number}].content[{index}]", str(part["type"])
    return None


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """The answer: a whole body, or a stream to be iterated and closed."""

    session_id: str
    body: dict[str, Any] | GenerationPipeline


class Generator:
    """Answers generation requests. One for the application; safe to use from many threads."""

    def __init__(
        self,
        server: ModelServerClient,
        catalogue: Catalogue,
        recorder: Recorder,
        reports: FeedbackWriter | None,
        chats: Chats,
    ) -> None:
        """``reports``: what a supervisor of ours is told, if there is one."""
        self._chats = chats
        self._reports = reports
        self._server = server
        self._catalogue = catalogue
        self._recorder = recorder
        ours = server.supervised
        self._engine = UpstreamTraits(ours, lambda: ours or catalogue.is_llama_cpp(), server.slots)

    def generate(self, endpoint: Endpoint, asked: RequestContext) -> GenerationResult:
        """Answer a request. Raises our exceptions; whatever happens, the exchange is recorded."""
        exchange = self.exchange(endpoint, asked)
        with exchange.recorded():
            return self._generate(endpoint, asked, exchange)

    def exchange(self, endpoint: Endpoint, asked: RequestContext) -> ExchangeRecord:
        """The exchange of a request to an endpoint, open until it is told how it ended."""
        return ExchangeRecord(self._recorder, self._reports, endpoint.path, asked, endpoint.dialect.transcript)

    def served(self, model: str | None) -> str | None:
        """The model that answers, where it is known. Raises NotFound for one that is not served."""
        self._catalogue.check(model)
        return model or self._catalogue.default()

    def stream(self, payload: dict[str, Any], exchange: ExchangeRecord, call: UpstreamCall) -> SSEStream:
        """The answer to a valid chat payload, streamed whatever the payload says. Raises our exceptions."""
        plan = self._planned(CHAT, payload | {"stream": True}, None, exchange, call)
        return self._streamed(CHAT, plan, call, show_progress=False)

    def _generate(self, endpoint: Endpoint, asked: RequestContext, exchange: ExchangeRecord) -> GenerationResult:
        payload = load(endpoint.schema, asked.body)
        model = self.served(payload.get("model"))
        session_id = payload.get("session_id") or new_session_id()
        if endpoint is CHAT and payload.get("store"):
            store_completion(exchange, payload, session_id)
        recalled = self._chats.memory.recall(payload, asked.caller.owner) if endpoint.chat else None
        new, continues = (recalled.new, recalled.continues) if recalled else (endpoint.messages(payload), None)
        exchange.begin(payload, session_id, model, new, continues)
        plan = self._planned(endpoint, payload, recalled, exchange, asked.call)
        try:
            if not plan.streamed:
                answer = self._server.generate(endpoint.upstream or endpoint.path, plan.requests[0], asked.call)
                return GenerationResult(session_id, _whole(answer, exchange, session_id))
            show_progress = bool(payload.get("return_progress"))
            stream = self._streamed(endpoint, plan, asked.call, show_progress=show_progress)
            if not payload.get("stream"):
                return GenerationResult(session_id, _assembled(stream, exchange, session_id, endpoint))
            # What fails before the first event is an HTTP error.
            stream.wait_for_first()
            return GenerationResult(session_id, GenerationPipeline(stream, exchange, show_usage=wants_usage(payload)))
        except ModelServerRefused as error:
            add_error_param(error, cast("dict[str, Any]", asked.body), forced=plan.forced is not None)
            raise

    def _planned(
        self,
        endpoint: Endpoint,
        payload: dict[str, Any],
        recalled: ContinuedSession | None,
        exchange: ExchangeRecord,
        call: UpstreamCall,
    ) -> GenerationPlan:
        if endpoint.chat:
            messages = self._chats.prompts.prompt(payload, recalled, payload.get("truncation"), call)
            payload = payload | {"messages": messages}
        return make_plan(endpoint, payload, self._engine, exchange.seed, partial(self._ask, call))

    def _streamed(
        self, endpoint: Endpoint, plan: GenerationPlan, call: UpstreamCall, *, show_progress: bool
    ) -> SSEStream:
        """The answer's stream. A request that is one of several is sent when the one before has been answered."""
        path = endpoint.upstream or endpoint.path
        streams = (
            endpoint.dialect.stream(self._server.generate(path, sent, call), show_progress=show_progress)
            for sent in plan.requests
        )
        return StagedStream(streams, plan.stages) if plan.stages else next(streams)

    def _ask(self, call: UpstreamCall, path: str, question: dict[str, Any]) -> Any:
        """A question that a request needs answered first."""
        return self._server.generate(path, question, call).decoded_object()


def _assembled(stream: SSEStream, exchange: ExchangeRecord, session_id: str, endpoint: Endpoint) -> dict[str, Any]:
    """Read a stream to its end and make one answer of it, recorded before anyone sees it."""
    try:
        for events in stream:
            exchange.first_bytes()
            exchange.read(events)
    finally:
        stream.close()
    exchange.succeed()
    return endpoint.dialect.whole(exchange.transcript, chat=endpoint.chat) | {"session_id": session_id}


def _whole(answer: UpstreamResponse, exchange: ExchangeRecord, session_id: str) -> dict[str, Any]:
    """Read another engine's answer that does not stream, recorded before anyone sees it."""
    body = answer.decoded_object()
    exchange.transcript.add_body(body)
    exchange.succeed()
    body["session_id"] = session_id
    return body
