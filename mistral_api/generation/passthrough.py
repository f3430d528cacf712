"""Requests that generate nothing: passed to the model server, recorded as usage, never as conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mistral_api.errors import InvalidRequest, ModelServerFailed
from mistral_api.generation.endpoint import OWN_FIELDS, RequestContext
from mistral_api.generation.prompt import PromptBuilder
from mistral_api.generation.prompt_size import chat_size
from mistral_api.generation.refusal_texts import refusals_as_text
from mistral_api.generation.refused_field import unknown_token, unknown_token_refusal
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.payload_types import omit, only
from mistral_api.recording.recorder import Recorder
from mistral_api.upstream.catalogue import with_model
from mistral_api.upstream.model_servers import ModelServerEntry
from mistral_api.wire.tools import forces_call


def empty_payload(_body: object) -> None:
    """The reader of a request without a body."""
    return


@dataclass(frozen=True, slots=True)
class PassthroughEndpoint:
    """One endpoint of the model server that ours passes requests to.

    ``path`` is how it is recorded, ``upstream_path`` the model server's, where it differs. ``read`` makes the payload
    of the decoded body, and raises InvalidRequest. ``refusal``: what a failure of the model server means, where only a
    wrong request makes it fail. ``fits_roles``: the roles of the messages are fitted to the chat template, as they
    would be for a generation. ``takes_messages``: the payload has the messages of a chat. ``changes_model``: afterwards
    the model may answer otherwise, without a restart of the model server. ``fields``: those that the model server is
    known to take; without them it gets all.
    """

    path: str
    read: Callable[[object], Any] = empty_payload
    method: str = "POST"
    upstream_path: str = ""
    refusal: InvalidRequest | None = None
    fits_roles: bool = False
    takes_messages: bool = False
    changes_model: bool = False
    fields: frozenset[str] | None = None


class PassthroughService:
    """Passes requests to the model server. One for the application; safe to use from many threads."""

    def __init__(
        self,
        server: ModelServerEntry,
        recorder: Recorder,
        prompts: PromptBuilder,
        on_model_change: Callable[[], None] | None = None,
    ) -> None:
        self._limits = server.limits
        self._client = server.client
        self._catalogue = server.catalogue
        self._recorder = recorder
        self._prompts = prompts
        self._constraints = server.constraints
        self._on_model_change = on_model_change

    def pass_through(self, endpoint: PassthroughEndpoint, request: RequestContext, upstream_path: str = "") -> Any:
        """Return the decoded response. ``upstream_path`` is the path for this once. Raises our exceptions."""
        exchange = RunningExchange(self._recorder, endpoint.path, request)
        path = upstream_path or endpoint.upstream_path or endpoint.path
        with exchange.failures_recorded():
            response = self._pass_through(endpoint, request, exchange, path)
            if endpoint.changes_model and self._on_model_change is not None:
                self._on_model_change()
        exchange.succeed()
        return response

    def _served_model(self, endpoint: PassthroughEndpoint, model: str | None) -> str | None:
        """Return the model that answers; no other one than the one named is loaded, or changed. Raises NotFound."""
        if endpoint.changes_model:
            self._catalogue.require(model)
        return self._catalogue.resolve(model)

    def _pass_through(
        self, endpoint: PassthroughEndpoint, request: RequestContext, exchange: RunningExchange, path: str
    ) -> Any:
        payload = endpoint.read(request.body)
        # llama.cpp makes a grammar of the tools wherever it applies the template.
        forced = endpoint.takes_messages and forces_call(payload.get("tool_choice"))
        self._constraints.admit(request.body, request.caller, forced=forced)
        model = payload.get("model") if isinstance(payload, dict) else None
        exchange.record.exchange.model = served = self._served_model(endpoint, model)
        if isinstance(payload, dict):
            payload = omit(with_model(payload, served), OWN_FIELDS)
            if endpoint.fields is not None and not self._limits.pass_unknown:
                payload = only(payload, endpoint.fields)
        if endpoint.takes_messages:
            param = "messages" if endpoint.fits_roles else None
            self._prompts.limit.require_fit(chat_size(payload["messages"], payload, param), request.call)
            messages = refusals_as_text(payload["messages"])
            payload["messages"] = self._prompts.images.inline(messages, request.body, request.call)
        if endpoint.fits_roles:
            payload["messages"] = self._prompts.fit_roles(payload["messages"], request.call)
        try:
            return self._client.request(path, payload, request.call, method=endpoint.method).json()
        except ModelServerFailed as error:
            if endpoint.refusal is None:
                raise
            raise _refusal(endpoint.refusal, request.body) from error


def _refusal(refusal: InvalidRequest, body: object) -> InvalidRequest:
    """Return the refusal that names the token which the model server does not know, where there are tokens."""
    param = unknown_token(body) if isinstance(body, dict) else None
    if param is not None:
        return unknown_token_refusal(param)
    return InvalidRequest(refusal.message, code=refusal.code, param=refusal.param)
