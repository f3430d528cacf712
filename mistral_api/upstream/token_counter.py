"""How many tokens a chat has, counted by the model server with the model's own template and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from mistral_api.errors import InvalidRequest, ModelServerFailed, ModelServerRefused
from mistral_api.payload_types import JsonObject, only
from mistral_api.payload_types.chat import ChatMessage, ChatPayload, Tool
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.client import ModelServerClient
from mistral_api.upstream.loaded_model import LoadedModels
from mistral_api.wire.engine_fields import LLAMA_CPP_CHAT

# How many bytes a template may put around a message, beyond the length of the template itself.
MARKUP = 64
# What changes a prompt, and not how its answer is sent.
_COUNTED = LLAMA_CPP_CHAT - {"stream", "stream_options"}
_NO_SUCH_ENDPOINT = (404, 405, 501)


class TokenCounter:
    """Counts the tokens of chats. Safe to use from many threads."""

    def __init__(self, client: ModelServerClient, loaded: LoadedModels) -> None:
        self._client = client
        self._loaded = loaded

    def context(self, call: UpstreamCall | None = None) -> int:
        """Return how many tokens one request may have with its answer.

        Raises InvalidRequest where the model server does not say, and our exceptions where it cannot be asked.
        """
        size = self._loaded.current(call or UpstreamCall()).context
        if size is None:
            raise _cannot_count()
        return size

    def most_tokens(self, messages: Sequence[ChatMessage], options: ChatPayload, call: UpstreamCall) -> int | None:
        """Return a number of tokens that the chat does not exceed, without asking the model server; None: not known.

        A token stands for at least a byte of text, or for something that the template writes.
        """
        if any(has_more_than_text(message) for message in messages):
            return None
        template = self._loaded.current(call).template
        if template is None:
            return None
        text = len(orjson.dumps(messages)) + len(orjson.dumps(dict(options))) + len(template.encode())
        return text + MARKUP * len(messages)

    def count_tokens(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Tool] | None = None,
        options: ChatPayload | None = None,
        call: UpstreamCall | None = None,
    ) -> int:
        """Return how many tokens a chat has as a prompt, in one round trip.

        ``options``: the other fields of a chat request that change its prompt (``chat_template_kwargs`` …). Raises
        InvalidRequest where the model server cannot count, ModelServerRefused for messages that it does not take, and
        our exceptions for the rest.
        """
        request = {**(options or {}), "messages": list(messages)} | ({"tools": list(tools)} if tools else {})
        return self._count(only(request, _COUNTED), call or UpstreamCall())

    def _count(self, request: JsonObject, call: UpstreamCall) -> int:
        try:
            counted = self._client.query("/v1/chat/completions/input_tokens", request, call)
        except ModelServerRefused as error:
            if error.status not in _NO_SUCH_ENDPOINT:
                raise
            return self._count_in_two_steps(request, call)
        return _whole_number(counted.get("input_tokens"))

    def _count_in_two_steps(self, request: JsonObject, call: UpstreamCall) -> int:
        """Apply the template, then count the tokens of its text: an older llama.cpp cannot do both at once."""
        try:
            return self.count_text(self._client.query("/apply-template", request, call).get("prompt"), call)
        except ModelServerRefused as error:
            if error.status in _NO_SUCH_ENDPOINT:
                raise _cannot_count() from error
            raise

    def count_text(self, text: object, call: UpstreamCall) -> int:
        """Return how many tokens a text has as a prompt. Raises our exceptions."""
        request = {"content": text, "add_special": True, "parse_special": True}
        tokens = self._client.query("/tokenize", request, call).get("tokens")
        return _whole_number(len(tokens) if isinstance(tokens, list) else None)


def has_more_than_text(message: ChatMessage) -> bool:
    """Return whether a message has an image, a sound or a file."""
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") not in ("text", "refusal") for part in content
    )


def _whole_number(count: object) -> int:
    if not isinstance(count, int):
        raise ModelServerFailed("The model server did not say how many tokens these are.", summary="no token count")
    return count


def _cannot_count() -> InvalidRequest:
    return InvalidRequest(
        "'truncation' auto needs a model server that counts tokens, as llama.cpp does; this one does not.",
        code="not_supported",
        param="truncation",
    )
