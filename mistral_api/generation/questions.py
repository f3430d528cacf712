"""Questions that the model server answers without generating: recorded as usage, never as conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mistral_api.errors import InvalidRequest, ModelServerFailed
from mistral_api.generation.asked import Asked
from mistral_api.generation.endpoints import OWN_FIELDS
from mistral_api.generation.outcome import OpenExchange
from mistral_api.generation.prompts import Prompts
from mistral_api.inference.catalogue import Catalogue
from mistral_api.inference.client import ModelServer
from mistral_api.recording.recorder import Recorder


def nothing(_body: object) -> None:
    """The reader of a question that has no body."""
    return


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask. ``path`` is how it is recorded, ``upstream`` the model server's, where that is another one.

    ``read`` makes the payload of the decoded body, and raises InvalidRequest. ``refusal``: what a failure of
    the model server means, where only a wrong request makes it fail. ``fitted``: the messages are those of a request
    that would be fitted to the template, so these are.
    """

    path: str
    read: Callable[[object], Any] = nothing
    method: str = "POST"
    upstream: str | None = None
    refusal: InvalidRequest | None = None
    fitted: bool = False


class Questions:
    """Asks them. One for the application; safe to use from many threads."""

    def __init__(self, server: ModelServer, catalogue: Catalogue, recorder: Recorder, prompts: Prompts) -> None:
        self._prompts = prompts
        self._server = server
        self._catalogue = catalogue
        self._recorder = recorder

    def ask(self, question: Question, asked: Asked, upstream: str | None = None) -> Any:
        """The decoded answer. ``upstream`` names the path for this once. Raises our exceptions."""
        exchange = OpenExchange(self._recorder, None, question.path, asked)
        with exchange.recorded():
            answer = self._ask(question, asked, exchange, upstream or question.upstream or question.path)
        exchange.succeed()
        return answer

    def _ask(self, question: Question, asked: Asked, exchange: OpenExchange, upstream: str) -> Any:
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
