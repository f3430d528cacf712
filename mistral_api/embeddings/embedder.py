"""The way of a request to vectors or scores: validate, choose a server, send batches, join their results, record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Generic

import orjson

from mistral_api.embeddings.shortening import shorten_inputs
from mistral_api.embeddings.tasks import Batches, EmbeddingTask, ResultT, text_size
from mistral_api.errors import ApiError, InvalidRequest, ModelServerFailed, ModelServerRefused
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.exchange_record import ExchangeOpening
from mistral_api.generation.refused_field import name_refused_field
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.generation.supervisor_feedback import SupervisorFeedback
from mistral_api.model_files.vocabulary import longest_token
from mistral_api.payload_types import PayloadT, only
from mistral_api.recording.recorder import Recorder
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.catalogue import with_model
from mistral_api.upstream.errors import ContextExceeded, context_exceeded
from mistral_api.upstream.model_servers import ModelServerEntry, ModelServers
from mistral_api.upstream.text_limit import TextLimit, TextSize
from mistral_api.wire import load
from mistral_api.wire.embeddings import EmbeddingInput

# How engines refuse an endpoint that they do not offer: OpenAI-compatible ones have no such URL.
_NO_SUCH_URL = (404, 405)
_NO_POOLING = "Pooling type 'none'"


class Embedder:
    """Answers requests for embeddings and rankings. One for the application; safe to use from many threads."""

    def __init__(self, servers: ModelServers, recorder: Recorder, limit: TextLimit) -> None:
        """``limit``: of text for the main model server."""
        self._servers = servers
        self._recorder = recorder
        self._main_limit = limit

    def answer(self, task: EmbeddingTask[PayloadT, ResultT], request: RequestContext) -> Mapping[str, object]:
        """Return the body of the response. Raises our exceptions.

        Whatever happens, the figures are recorded, and no text.
        """
        exchange = RunningExchange(self._recorder, task.path, request)
        with exchange.failures_recorded():
            body = self._answer(task, request, exchange)
        exchange.succeed()
        return body

    def _answer(
        self, task: EmbeddingTask[PayloadT, ResultT], request: RequestContext, exchange: RunningExchange
    ) -> Mapping[str, object]:
        payload = load(task.schema, request.body)
        if not self._servers.main.limits.pass_unknown:
            payload = only(payload, task.known_fields())
        server = self._choose(task, payload.get("model"))
        if task.truncates(payload):
            payload = task.clipped(payload, self._limit(server).most_bytes(request.call))
        else:
            self._require_fit(task, payload, server, request.call)
        if server.feedback is not None:
            exchange.feedback = SupervisorFeedback(server.feedback)
        model = server.catalogue.resolve(payload.get("model"))
        payload = with_model(payload, model)
        exchange.begin(ExchangeOpening(messages=[], session_id=None, model=model))
        return _EmbeddingRun(task, payload, server, request.call, exchange).body(model)

    def _require_fit(
        self, task: EmbeddingTask[PayloadT, ResultT], payload: PayloadT, server: ModelServerEntry, call: UpstreamCall
    ) -> None:
        """Refuse an input that is longer than a context could ever hold. Raises InvalidRequest."""
        limit, extra = self._limit(server), task.extra_bytes(payload)
        for index, item in enumerate(task.items(payload)):
            if isinstance(item, str):
                size = text_size(item) + extra
                limit.require_fit(TextSize(size, size, task.place(payload, index)), call)

    def _limit(self, server: ModelServerEntry) -> TextLimit:
        """Return the limit of a server's inputs. One of the embedding server is as long as its settings say."""
        if server is self._servers.main or server.spec is None:
            return self._main_limit
        settings = server.spec.settings
        return TextLimit(lambda _call: settings.batch_size, lambda: longest_token(settings.model_path))

    def _choose(self, task: EmbeddingTask[PayloadT, ResultT], model: str | None) -> ModelServerEntry:
        """Return the server for a request that names this model, or none.

        Raises NotFound for a model that is not served, InvalidRequest (``not_supported``) for one that cannot.
        """
        able = [entry for entry in self._servers.named(model) if entry.suits(ranks=task.ranks)]
        if not able:
            raise not_supported(task, model or self._servers.default_model())
        return able[0]


def not_supported(task: EmbeddingTask[PayloadT, ResultT], model: str | None) -> InvalidRequest:
    """Return the refusal where no model does this; it says what to set."""
    subject = f"The model '{model}'" if model else "The model that is served"
    return InvalidRequest(
        f"{subject} {task.refusal}. Set EMBEDDING_MODEL_PATH to {task.model} (a GGUF file), or MODEL_SERVER_URL to an "
        "engine that serves one.",
        code="not_supported",
        param="model",
    )


class _EmbeddingRun(Generic[PayloadT, ResultT]):
    """One request on its way through a model server."""

    def __init__(
        self,
        task: EmbeddingTask[PayloadT, ResultT],
        payload: PayloadT,
        server: ModelServerEntry,
        call: UpstreamCall,
        exchange: RunningExchange,
    ) -> None:
        self._task = task
        self._payload = payload
        self._server = server
        self._call = call
        self._exchange = exchange

    def body(self, model: str | None) -> Mapping[str, object]:
        """Send all batches, and return all results in one body."""
        results: list[ResultT] = []
        batches = Batches(self._task.items(self._payload), self._task.extra_bytes(self._payload))
        for first, items in batches:
            began = time.monotonic()
            results += self._send_batch(first, items)
            batches.took(time.monotonic() - began)
        transcript = self._exchange.transcript
        tokens = transcript.count_tokens().prompt or 0
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        try:
            own_fields = self._task.body(self._payload, results)
        except ValueError as error:
            raise _invalid_response() from error
        return {"object": "list", "model": model or transcript.model or "", **own_fields, "usage": usage}

    def _send_batch(self, first: int, items: list[EmbeddingInput]) -> list[ResultT]:
        """Return the results for some items. Raises ContextExceeded that names the item that is too long."""
        try:
            return self._send(items)
        except ModelServerRefused as error:
            if error.code != "context_length_exceeded":
                raise self._refusal(error) from error
            most = error.limit if isinstance(error, ContextExceeded) else None
            if isinstance(most, int) and self._task.truncates(self._payload):
                return self._send(shorten_inputs(items, most, self._server.client, self._call))
            raise self._too_long(first, items, error) from error

    def _send(self, items: list[EmbeddingInput]) -> list[ResultT]:
        payload = self._task.upstream_payload(self._payload, items)
        path = self._task.upstream_path or self._task.path
        self._call.trace.begin_upstream()
        with self._server.slot_owners.unplaced():
            content = self._server.client.request(path, payload, self._call).content()
        try:
            body = orjson.loads(content)
            results = self._task.read(self._payload, body)
            self._exchange.read_body({"usage": body["usage"], "model": body.get("model")})
            return [results[index] for index in range(len(items))]
        except (ValueError, KeyError, TypeError) as error:
            raise _invalid_response() from error

    def _refusal(self, error: ModelServerRefused) -> ApiError:
        """Tell a server that does not do this at all from one that refuses this request."""
        unknown = error.status in _NO_SUCH_URL and error.code != "model_not_found"
        if unknown or error.code == "not_supported" or error.message.startswith(_NO_POOLING):
            return not_supported(self._task, self._exchange.record.exchange.model)
        name_refused_field(error, self._payload)
        error.param = error.param or self._task.field
        return error

    def _too_long(self, first: int, items: list[EmbeddingInput], error: ModelServerRefused) -> ModelServerRefused:
        """Find the item that is too long: the server does not say which, so they are tried alone, the longest first."""
        by_length = sorted(range(len(items)), key=lambda index: text_size(items[index]), reverse=True)
        for index in by_length if len(items) > 1 else ():
            try:
                self._send([items[index]])
            except ModelServerRefused as refusal:
                return self._located(first + index, refusal)
        return self._located(first + by_length[0], error)

    def _located(self, index: int, error: ModelServerRefused) -> ModelServerRefused:
        """Return the refusal with the path of the item."""
        param = self._task.place(self._payload, index)
        if not isinstance(error, ContextExceeded):
            error.param = param
            return error
        with_query = " with the query" if self._task.ranks else ""
        return context_exceeded(error.limit, error.used, what=f"'{param}'{with_query}", param=param)


def _invalid_response() -> ModelServerFailed:
    return ModelServerFailed("The model server answered something that makes no sense.", summary="nonsense")
