"""Context window and chat template of the loaded model.

What the loaded model's chat template demands of a list of messages, found out by trying it.

llama.cpp applies the template without generating anything (``POST /apply-template``, tools/server/README.md), so a
few small lists tell which of them it takes. Its ``chat_template_caps`` (``GET /props``) say whether the template
reads a system message at all; where it does not, llama.cpp puts the first one into whatever message follows.

What the model server says of the model it has loaded: the context of a request, and the chat template.

Read once, and again when the model server has been restarted; only where somebody needs it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mistral_api.errors import ModelServerError, ModelServerRefused, ModelUnavailable
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.client import ModelServerClient

Messages = list[dict[str, Any]]

_SYSTEM, _USER, _ASSISTANT = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Good day."},
)
PLAIN: Messages = [_USER]


@dataclass(frozen=True, slots=True)
class TemplateRules:
    """What a template takes: ``system`` one system message at the beginning, ``systems`` any number of them anywhere;
    ``alternates``: it refuses two turns of one role after another."""

    system: bool = True
    systems: bool = True
    alternates: bool = False

    @property
    def none(self) -> bool:
        """Whether it takes everything."""
        return self.system and self.systems and not self.alternates


ANYTHING = TemplateRules()


def read_template_rules(takes: Callable[[Messages], bool], caps: Mapping[str, Any]) -> TemplateRules:
    """The rules of a template that takes :data:`PLAIN`. ``takes`` says whether it takes a list, ``caps`` are
    llama.cpp's ``chat_template_caps``."""
    # Each list breaks one rule and no other.
    system = caps.get("supports_system_role") is not False and takes([_SYSTEM, _USER])
    alternates = not (takes([_USER, _USER]) and takes([_USER, _ASSISTANT, _ASSISTANT, _USER]))
    systems = system and takes([_SYSTEM, _SYSTEM, _USER]) and takes([_USER, _ASSISTANT, _SYSTEM, _USER])
    return TemplateRules(system, systems, alternates)


log = logging.getLogger(__name__)

# How long the answers of a model server are believed whose restarts nobody tells us, and that one told nothing.
FRESH_SECONDS = 10.0
# The longest silence of a question that llama.cpp answers without its model.


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """``context``: tokens for one request with its answer, None where the server does not say. ``template`` is the
    chat template's source, ``rules`` what it demands."""

    context: int | None = None
    template: str | None = None
    rules: TemplateRules = ANYTHING


class LoadedModels:
    """The model that is loaded now. Safe to use from many threads."""

    def __init__(self, client: ModelServerClient, life: Callable[[], object | None]) -> None:
        """``life`` tells one life of the model server from the next; None where nobody knows."""
        self._client = client
        self._life = life
        # What is known, of which life, and until when it is believed.
        self._read: tuple[LoadedModel, object | None, float] | None = None

    def current(self, call: UpstreamCall) -> LoadedModel:
        """What is known of it, from memory where that is still true.

        Waits for a model server that is loading. Raises ModelUnavailable where it does not come, and what ends
        the call; after any other failure nothing is known for a while.
        """
        life, now = self._life(), time.monotonic()
        if self._read is not None:
            known, of_life, until = self._read
            if of_life == life and now < until:
                return known
        try:
            model, until = self._ask(call), math.inf if life is not None else now + FRESH_SECONDS
        except ModelUnavailable:
            raise
        except ModelServerError as error:  # it may have been busy
            log.warning("the model server does not tell its chat template: %s", type(error).__name__)
            model, until = LoadedModel(), now + FRESH_SECONDS
        self._read = model, life, until
        return model

    def _ask(self, call: UpstreamCall) -> LoadedModel:
        try:
            taken = self._takes(PLAIN, call)  # waits until the server is ready
            props = self._client.get("/props")
            return self._model(props if isinstance(props, dict) else {}, taken, call)
        except ModelServerRefused:
            return LoadedModel()  # another engine

    def _model(self, props: dict[str, Any], plain_taken: bool, call: UpstreamCall) -> LoadedModel:
        context, template = _context(props), props.get("chat_template")
        if not isinstance(template, str) or not plain_taken:
            return LoadedModel(context)
        if self._read is not None and self._read[0].template == template:
            return LoadedModel(context, template, self._read[0].rules)
        caps = props.get("chat_template_caps")
        rules = read_template_rules(
            lambda messages: self._takes(messages, call), caps if isinstance(caps, dict) else {}
        )
        return LoadedModel(context, template, rules)

    def _takes(self, messages: Messages, call: UpstreamCall) -> bool:
        """Raises ModelServerRefused where the server does not know the question."""
        try:
            self._client.query("/apply-template", {"messages": messages}, call)
        except ModelServerRefused as error:
            if error.status != 400 or error.code != "chat_template_error":
                raise
            return False
        return True


def _context(props: dict[str, Any]) -> int | None:
    """llama.cpp's ``n_ctx`` of one slot."""
    settings = props.get("default_generation_settings")
    size = settings.get("n_ctx") if isinstance(settings, dict) else None
    return size if isinstance(size, int) and size > 0 else None
