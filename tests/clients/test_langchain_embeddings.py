"""The standard tests of langchain-tests for embeddings, and the async client of the openai package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

from tests.support.langchain_chat import MODEL
from tests.support.openai_clients import async_openai_client
from tests.support.processes import Server, running_server, temporary_data_dir


@pytest.fixture(scope="module")
def embedding() -> Iterator[Server]:
    """The stack with its one model server in embedding mode."""
    settings = {"CONTEXT_SIZE": "2048", "LLAMA_ARG_EMBEDDINGS": "1", "LLAMA_ARG_POOLING": "mean"}
    with temporary_data_dir() as data_dir, running_server(data_dir, **settings) as running:
        yield running


class TestEmbeddings(EmbeddingsIntegrationTests):
    """The published tests."""

    @pytest.fixture(autouse=True)
    def _stack(self, embedding: Server, http_clients: dict[str, Any]) -> None:
        self.server, self.http_clients = embedding, http_clients

    @property
    def embeddings_class(self) -> type[Embeddings]:
        """The client under test."""
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        """The client's options: it sends text, not the tokens of an OpenAI model."""
        own = {"model": MODEL, "base_url": f"{self.server.url}/v1", "api_key": "unused", "max_retries": 0}
        return own | self.http_clients | {"check_embedding_ctx_length": False}


async def test_async_openai_client_gets_the_same_embeddings_in_both_encodings(embedding: Server) -> None:
    texts = ["The cat sat on the mat.", "Stocks fell."]
    async with async_openai_client(embedding) as client:
        made = await client.embeddings.create(model=MODEL, input=texts)
        floats = await client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert [each.index for each in made.data] == [0, 1]
    for one, other in zip(made.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
