"""The one way from a request to vectors or scores: validate, choose a server, ask in portions, join, record."""

from __future__ import annotations

import time
from typing import Any

import orjson

from mistral_api.embeddings.tasks import Batches, EmbeddingInput, EmbeddingTask, text_size
from mistral_api.errors import ApiError, InvalidRequest, ModelServerFailed, ModelServerRefused
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.exchange_record import ExchangeRecord
from mistral_api.generation.supervisor_feedback import report_generation
from mistral_api.recording.recorder import Recorder
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import ContextExceeded, context_exceeded
from mistral_api.upstream.model_servers import ModelServerEntry, ModelServers
from mistral_api.wire import load

# How engines that do not offer an endpoint put it: OpenAI-compatible ones have no such URL.
_NO_SUCH_URL = (404, 405)
_NO_POOLING = "Pooling type 'none'"


class Embedder:
    """Answers requests for embeddings and rankings. One for the application; safe to use from many threads."""

    def __init__(self, hosts: ModelServers, recorder: Recorder) -> None:
        self._hosts = hosts
        self._recorder = recorder

    def answer(self, task: EmbeddingTask, asked: RequestContext) -> dict[str, Any]:
        """The answer's body. Raises our exceptions; whatever happens, the figures are recorded, and no text."""
        exchange = ExchangeRecord(self._recorder, None, task.endpoint.path, asked)
        with exchange.recorded():
            return self._answer(task, asked, exchange)

    def _answer(self, task: EmbeddingTask, asked: RequestContext, exchange: ExchangeRecord) -> dict[str, Any]:
        payload = load(task.endpoint.schema, asked.body)
        host = self._choose(task, payload.get("model"))
        model = payload.get("model") or host.catalogue.default()
        # Nothing of the payload: what means something in a generation (``n``, ``stream``) means nothing here.
        exchange.begin({}, None, model, task.endpoint.messages(payload))
        round_ = _Round(task, payload, host, asked.call, exchange)
        try:
            body = round_.body(model)
        except ApiError as error:
            _report(host, exchange, error)
            raise
        exchange.succeed()
        _report(host, exchange, None)
        return body

    def _choose(self, task: EmbeddingTask, model: str | None) -> ModelServerEntry:
        """Return the server for a request that names this model, or none.

        Raises NotFound for a model that is not served, InvalidRequest (``not_supported``) for one that cannot.
        """
        able = [entry for entry in self._hosts.named(model) if entry.suits(ranks=task.ranks)]
        if not able:
            raise not_supported(task, model or self._hosts.default_model())
        return able[0]


def not_supported(task: EmbeddingTask, name: str | None) -> InvalidRequest:
    """Return the refusal where no model does this; it says what to set."""
    who = f"The model '{name}'" if name else "The model that is served"
    return InvalidRequest(
        f"{who} {task.makes}. Set EMBEDDING_MODEL_PATH to {task.model} (a GGUF file), or MODEL_SERVER_URL to an engine "
        "that serves one.",
        code="not_supported",
        param="model",
    )


def _report(host: ModelServerEntry, exchange: ExchangeRecord, error: ApiError | None) -> None:
    """Tell that server's own supervisor: three failures in a row have it restarted."""
    if host.reports is not None:
        report_generation(host.reports, None, exchange.record, error)


class _Round:
    """One request on its way through a model server."""

    def __init__(
        self,
        task: EmbeddingTask,
        payload: dict[str, Any],
        host: ModelServerEntry,
        call: UpstreamCall,
        exchange: ExchangeRecord,
    ) -> None:
        self._task = task
        self._payload = payload
        self._host = host
        self._call = call
        self._exchange = exchange

    def body(self, model: str | None) -> dict[str, Any]:
        """All results in one answer."""
        results: list[Any] = []
        portions = Batches(self._task.items(self._payload), self._task.beside(self._payload))
        for first, items in portions:
            began = time.monotonic()
            results += self._portion(first, items)
            portions.took(time.monotonic() - began)
        tokens = self._exchange.transcript.settle().prompt or 0
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        try:
            own = self._task.body(self._payload, results)
        except ValueError as error:
            raise _nonsense() from error
        return {"object": "list", "model": model or self._exchange.transcript.model or "", **own, "usage": usage}

    def _portion(self, first: int, items: list[EmbeddingInput]) -> list[Any]:
        """The results for some items. Raises ContextExceeded that names the one that is too long."""
        try:
            return self._asked(items)
        except ModelServerRefused as error:
            if error.code != "context_length_exceeded":
                raise self._refusal(error) from error
            raise self._too_long(first, items, error) from error

    def _asked(self, items: list[EmbeddingInput]) -> list[Any]:
        answer = self._host.server.generate(self._task.endpoint.path, self._task.sent(self._payload, items), self._call)
        content = answer.read()
        try:
            body = orjson.loads(content)
            results = self._task.read(self._payload, body)
            self._exchange.transcript.add_body({"usage": body["usage"], "model": body.get("model")})
            return [results[index] for index in range(len(items))]
        except (ValueError, KeyError, TypeError) as error:
            raise _nonsense() from error

    def _refusal(self, error: ModelServerRefused) -> ApiError:
        """A server that does not do this at all is told from one that refuses this request."""
        unknown = error.status in _NO_SUCH_URL and error.code != "model_not_found"
        if unknown or error.code == "not_supported" or error.message.startswith(_NO_POOLING):
            return not_supported(self._task, self._exchange.record.model)
        error.param = error.param or self._task.field
        return error

    def _too_long(self, first: int, items: list[EmbeddingInput], error: ModelServerRefused) -> ModelServerRefused:
        """The server does not say which item it was: they are tried one by one, the longest first."""
        by_length = sorted(range(len(items)), key=lambda index: text_size(items[index]), reverse=True)
        for index in by_length if len(items) > 1 else ():
            try:
                self._asked([items[index]])
            except ModelServerRefused as refusal:
                return self._named(first + index, refusal)
        return self._named(first + by_length[0], error)

    def _named(self, index: int, error: ModelServerRefused) -> ModelServerRefused:
        alone = self._task.field == "input" and not isinstance(self._payload["input"], list)
        param = self._task.field if alone else f"{self._task.field}[{index}]"
        if not isinstance(error, ContextExceeded):
            error.param = param
            return error
        with_query = " with the query" if self._task.ranks else ""
        return context_exceeded(error.limit, error.used, what=f"'{param}'{with_query}", param=param)


def _nonsense() -> ModelServerFailed:
    return ModelServerFailed("The model server answered something that makes no sense.", summary="nonsense")
