"""Anthropic's endpoints, as the services for generations and for questions know them."""

from __future__ import annotations

from functools import partial
from typing import Any

from marshmallow import post_load

from mistral_api.anthropic.answers import MessageTranscript, complete_message
from mistral_api.anthropic.events import MessageStream
from mistral_api.anthropic.requests import chat_request
from mistral_api.generation.endpoints import CHAT, Dialect, Endpoint
from mistral_api.generation.questions import PassthroughEndpoint
from mistral_api.schemas import ChatCompletionRequest, load
from mistral_api.schemas.anthropic import CountTokensRequest, MessagesRequest

_CHAT = ChatCompletionRequest()


def _as_chat(request: dict[str, Any]) -> dict[str, Any]:
    """The chat completion request, held to all that holds for those. Raises InvalidRequest."""
    return load(_CHAT, chat_request(request))


class _Messages(MessagesRequest):
    """Loads as a chat completion request."""

    @post_load
    def _translate(self, data: dict[str, Any], **_options: Any) -> dict[str, Any]:
        return _as_chat(data)


class _CountTokens(CountTokensRequest):
    """Loads as a chat completion request."""

    @post_load
    def _translate(self, data: dict[str, Any], **_options: Any) -> dict[str, Any]:
        return _as_chat(data)


MESSAGES = Endpoint(
    "/v1/messages",
    True,
    _Messages(),
    CHAT.messages,
    upstream=CHAT.path,
    dialect=Dialect(MessageStream, MessageTranscript, complete_message),
)
COUNT_TOKENS = PassthroughEndpoint(
    "/v1/messages/count_tokens",
    partial(load, _CountTokens()),
    upstream="/v1/chat/completions/input_tokens",
    fitted=True,
)
