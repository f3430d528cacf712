"""Questions that the model server answers without generating: recorded as usage, never as conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mistral_api.errors import InvalidRequest, ModelServerFailed
from mistral_api.generation.endpoint import OWN_FIELDS, RequestContext
from mistral_api.generation.exchange_record import ExchangeRecord
from mistral_api.generation.prompt import PromptBuilder
from mistral_api.recording.recorder import Recorder
from mistral_api.upstream.catalogue import Catalogue
from mistral_api.upstream.client import ModelServerClient


def empty_payload(_body: object) -> None:
    """The reader of a question that has no body."""
    return


@dataclass(frozen=True, slots=True)
class PassthroughEndpoint:
    """One thing to ask. ``path`` is how it is recorded, ``upstream`` the model server's, where that is another one.

    ``read`` makes the payload of the decoded body, and raises InvalidRequest. ``refusal``: what a failure of
    the model server means, where only a wrong request makes it fail. ``fitted``: the messages are those of a request
    that would be fitted to the template, so these are.
    """

    path: str
    read: Callable[[object], Any] = empty_payload
    method: str = "POST"
    upstream: str | None = None
    refusal: InvalidRequest | None = None
    fitted: bool = False


class PassthroughService:
    """Asks them. One for the application; safe to use from many threads."""

    def __init__(
        self, server: ModelServerClient, catalogue: Catalogue, recorder: Recorder, prompts: PromptBuilder
    ) -> None:
        self._prompts = prompts
        self._server = server
        self._catalogue = catalogue
        self._recorder = recorder

    def ask(self, question: PassthroughEndpoint, asked: RequestContext, upstream: str | None = None) -> Any:
        """The decoded answer. ``upstream`` names the path for this once. Raises our exceptions."""
        exchange = ExchangeRecord(self._recorder, None, question.path, asked)
        with exchange.recorded():
            answer = self._ask(question, asked, exchange, upstream or question.upstream or question.path)
        exchange.succeed()
        return answer

    def _ask(
        self, question: PassthroughEndpoint, asked: RequestContext, exchange: ExchangeRecord, upstream: str
    ) -> Any:
        payload = question.read(asked.body)
        if isinstance(payload, dict):
            self._catalogue.check(payload.get("model"))
            exchange.record.model = payload.get("model")
            payload = {name: value for name, value in payload.items() if name not in OWN_FIELDS}
        exchange.record.model = exchange.record.model or self._catalogue.default()
        if question.fitted:
            payload["messages"] = self._prompts.fitted(payload["messages"], asked.call)
        try:
            return self._server.ask(question.method, upstream, payload, asked.call).decoded()
        except ModelServerFailed as error:
            if question.refusal is None:
                raise
            refusal = question.refusal
            raise InvalidRequest(refusal.message, code=refusal.code, param=refusal.param) from error
