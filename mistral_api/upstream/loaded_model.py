"""The model that the model server has loaded: the context of a request, and the chat template with its rules.

It is read where somebody needs it, and again when the model server has been restarted. llama.cpp applies the template
without generating anything (``POST /apply-template``, tools/server/README.md), so a few small lists of messages tell
which of them the template takes. Its ``chat_template_caps`` (``GET /props``) say whether the template reads a system
message at all. Where it does not, llama.cpp puts the first system message into the message that follows it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mistral_api.errors import ModelServerError, ModelServerRefused, ModelUnavailable
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.client import ModelServerClient

log = logging.getLogger(__name__)

# How long what is known stays valid where restarts of the model server are not known, or where it told nothing.
FRESH_SECONDS = 10.0

Messages = list[ChatMessage]

_SYSTEM: ChatMessage = {"role": "system", "content": "Be kind."}
_USER: ChatMessage = {"role": "user", "content": "Hello."}
_ASSISTANT: ChatMessage = {"role": "assistant", "content": "Good day."}
PLAIN: Messages = [_USER]


@dataclass(frozen=True, slots=True)
class TemplateRules:
    """Which lists of messages a template takes.

    ``system``: with one system message at the beginning; ``systems``: with any number of them anywhere.
    ``alternates``: it refuses two turns of one role after another.
    """

    system: bool = True
    systems: bool = True
    alternates: bool = False

    @property
    def none(self) -> bool:
        """Whether it takes every list."""
        return self.system and self.systems and not self.alternates


ANYTHING = TemplateRules()


def read_template_rules(takes: Callable[[Messages], bool], caps: Mapping[str, object]) -> TemplateRules:
    """Return the rules of a template that takes :data:`PLAIN`.

    ``takes``: whether it takes a list; ``caps``: llama.cpp's ``chat_template_caps``.
    """
    # Each list breaks one rule and no other.
    system = caps.get("supports_system_role") is not False and takes([_SYSTEM, _USER])
    alternates = not (takes([_USER, _USER]) and takes([_USER, _ASSISTANT, _ASSISTANT, _USER]))
    systems = system and takes([_SYSTEM, _SYSTEM, _USER]) and takes([_USER, _ASSISTANT, _SYSTEM, _USER])
    return TemplateRules(system, systems, alternates)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What is known of the loaded model.

    ``context``: tokens for one request with its answer, None where the server does not say. ``template``: the source of
    the chat template. ``version``: what llama.cpp says of its file and of itself.
    """

    context: int | None = None
    template: str | None = None
    rules: TemplateRules = ANYTHING
    version: str = ""


class LoadedModels:
    """The model that is loaded now. Safe to use from many threads."""

    def __init__(self, client: ModelServerClient, process: Callable[[], object | None]) -> None:
        """``process`` tells one process of the model server from the next; None where nobody knows."""
        self._client = client
        self._process = process
        # What is known, of which process, and until when it is valid.
        self._read: tuple[LoadedModel, object | None, float] | None = None
        # Held by the one who reads it again, while the others use what is known of the same process.
        self._reading = threading.Lock()

    def current(self, call: UpstreamCall) -> LoadedModel:
        """Return what is known of it, from memory where that is still valid.

        Waits for a model server that is loading. Raises ModelUnavailable where it does not come, and what ends the
        call. After any other failure nothing is known for a while.
        """
        process, now = self._process(), time.monotonic()
        if self._read is None or self._read[1] != process:
            return self._read_anew(process, now, call)
        known, _, until = self._read
        if now < until or not self._reading.acquire(blocking=False):
            return known
        try:
            return self._read_anew(process, now, call)
        finally:
            self._reading.release()

    def _read_anew(self, process: object | None, now: float, call: UpstreamCall) -> LoadedModel:
        try:
            model, until = self._ask(call), math.inf if process is not None else now + FRESH_SECONDS
        except ModelUnavailable:
            raise
        except ModelServerError as error:  # it may have been busy
            log.warning("the model server does not tell its chat template: %s", type(error).__name__)
            model, until = LoadedModel(), now + FRESH_SECONDS
        self._read = model, process, until
        return model

    def identity(self, call: UpstreamCall) -> str:
        """Return what tells the loaded model from any other: its process where that is known, else its own words.

        Raises as :meth:`current` does.
        """
        process = self._process()
        if process is not None:
            return f"{self._client.base_url} {process}"
        known = self.current(call)
        return f"{self._client.base_url} {known.version} {known.context} {known.template}"

    def _ask(self, call: UpstreamCall) -> LoadedModel:
        try:
            plain_taken = self._takes(PLAIN, call)  # waits until the server is ready
            props = self._client.get("/props")
            return self._model(props if isinstance(props, dict) else {}, plain_taken, call)
        except ModelServerRefused:
            return LoadedModel()  # another engine

    def _model(self, props: JsonObject, plain_taken: bool, call: UpstreamCall) -> LoadedModel:
        context, template = _context(props), props.get("chat_template")
        version = " ".join(str(props.get(name)) for name in ("model_path", "model_alias", "build_info"))
        if not isinstance(template, str) or not plain_taken:
            return LoadedModel(context, version=version)
        if self._read is not None and self._read[0].template == template:
            return LoadedModel(context, template, self._read[0].rules, version)
        caps = props.get("chat_template_caps")
        rules = read_template_rules(
            lambda messages: self._takes(messages, call), caps if isinstance(caps, dict) else {}
        )
        return LoadedModel(context, template, rules, version)

    def _takes(self, messages: Messages, call: UpstreamCall) -> bool:
        """Whether the template takes a list. Raises ModelServerRefused where the server has no such endpoint."""
        try:
            self._client.query("/apply-template", {"messages": messages}, call)
        except ModelServerRefused as error:
            if error.status != 400 or error.code != "chat_template_error":
                raise
            return False
        return True


def _context(props: JsonObject) -> int | None:
    """Return llama.cpp's ``n_ctx`` of one slot."""
    settings = props.get("default_generation_settings")
    size = settings.get("n_ctx") if isinstance(settings, dict) else None
    return size if isinstance(size, int) and size > 0 else None
