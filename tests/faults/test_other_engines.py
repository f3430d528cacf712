"""An engine behind MODEL_SERVER_URL that has nothing of llama.cpp's but generation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.prompts import Prompts
from mistral_api.generation.token_counter import TokenCounter
from mistral_api.inference.cancellation import Call
from mistral_api.inference.client import ModelServer
from mistral_api.inference.loaded_model import LoadedModel, LoadedModels
from mistral_api.settings import Settings
from tests.faults.misbehaving import misbehaving_server

MESSAGES = [{"role": "system", "content": "Be kind."}, *[{"role": "user", "content": "Hi"}] * 2]


@pytest.fixture
def prompts() -> Iterator[Prompts]:
    """The way of messages to it."""
    with misbehaving_server() as url:
        server = ModelServer(Settings(model_server_url=url), lambda: None, lambda: False)
        loaded = LoadedModels(server, lambda: None)
        assert loaded.current(Call()) == LoadedModel()
        yield Prompts(loaded, TokenCounter(server, loaded), "auto")
        server.close()


def test_its_messages_are_left_alone(prompts: Prompts) -> None:
    assert prompts.prompt({"messages": MESSAGES}, None, None, Call()) == MESSAGES


def test_it_cannot_be_asked_to_fit_them(prompts: Prompts) -> None:
    with pytest.raises(InvalidRequest) as refused:
        prompts.prompt({"messages": MESSAGES}, None, "auto", Call())
    assert (refused.value.code, refused.value.param) == ("not_supported", "truncation")
