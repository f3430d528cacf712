"""An engine behind MODEL_SERVER_URL that has no llama.cpp endpoint but generation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.prompt import PromptBuilder
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.settings import Settings
from mistral_api.upstream.cancellation import DisconnectWatcher, UpstreamCall
from mistral_api.upstream.client import ModelServerClient
from mistral_api.upstream.loaded_model import LoadedModel, LoadedModels
from mistral_api.upstream.text_limit import TextLimit
from mistral_api.upstream.token_counter import TokenCounter
from tests.support.misbehaving_server import misbehaving_server

MESSAGES: list[ChatMessage] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "user", "content": "Hi"},
]


@pytest.fixture
def prompts() -> Iterator[PromptBuilder]:
    """The prompt builder for an engine without llama.cpp's properties."""
    with misbehaving_server() as url, closing(DisconnectWatcher()) as watcher:
        server = ModelServerClient(Settings(model_server_url=url), lambda: None, lambda: False, watcher)
        loaded = LoadedModels(server, lambda: None)
        assert loaded.current(UpstreamCall()) == LoadedModel()
        limit = TextLimit(lambda call: loaded.current(call).context, lambda: 1)
        yield PromptBuilder(loaded, TokenCounter(server, loaded), "auto", limit)
        server.close()


def test_messages_for_an_engine_without_props_are_unchanged(prompts: PromptBuilder) -> None:
    assert prompts.prompt({"messages": MESSAGES}, None, None, UpstreamCall()) == MESSAGES


def test_truncation_is_refused_for_an_engine_without_props(prompts: PromptBuilder) -> None:
    with pytest.raises(InvalidRequest) as refused:
        prompts.prompt({"messages": MESSAGES}, None, "auto", UpstreamCall())
    assert (refused.value.code, refused.value.param) == ("not_supported", "truncation")
