"""An engine behind MODEL_SERVER_URL that has nothing of llama.cpp's but generation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mistral_api.generation.prompts import Prompts
from mistral_api.inference.cancellation import Call
from mistral_api.inference.client import ModelServer
from mistral_api.inference.loaded_model import LoadedModel, LoadedModels
from mistral_api.settings import Settings
from tests.faults.misbehaving import misbehaving_server

MESSAGES = [{"role": "system", "content": "Be kind."}, *[{"role": "user", "content": "Hi"}] * 2]


@pytest.fixture
def other_engine() -> Iterator[LoadedModels]:
    """What is known of its model."""
    with misbehaving_server() as url:
        server = ModelServer(Settings(model_server_url=url), lambda: None, lambda: False)
        yield LoadedModels(server, lambda: None)
        server.close()


def test_its_messages_are_left_alone(other_engine: LoadedModels) -> None:
    assert other_engine.current(Call()) == LoadedModel()
    assert Prompts(other_engine, "auto").fitted(MESSAGES, Call()) == MESSAGES
