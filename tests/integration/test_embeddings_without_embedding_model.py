"""Embeddings and rerank requests where only a chat model is served: refused clearly, and recorded."""

from __future__ import annotations

from typing import Any

import psycopg2.extensions
import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, wait_for


@pytest.mark.parametrize(
    ("path", "body", "does"),
    [
        ("/v1/embeddings", {"input": "x"}, "makes no embeddings. Set EMBEDDING_MODEL_PATH to an embedding model"),
        ("/v1/rerank", {"query": "q", "documents": ["d"]}, "does not rerank. Set EMBEDDING_MODEL_PATH to a reranker"),
    ],
    ids=["embeddings", "rerank"],
)
def test_embeddings_and_rerank_without_a_model_name_the_setting_to_make(
    server: Server,
    http: requests.Session,
    database: psycopg2.extensions.cursor,
    path: str,
    body: dict[str, Any],
    does: str,
) -> None:
    answer = http.post(server.url + path, json=body, timeout=30)
    assert answer.status_code == 400
    assert_error_shape(answer.json(), code="not_supported")
    assert answer.json()["error"]["message"].startswith(f"The model 'SmolLM2-135M-Instruct.Q4_1' {does}")

    def row() -> Any:
        query = "SELECT endpoint, status, error_code, session_id FROM api_usage WHERE request_id = %s"
        database.execute(query, (answer.headers["X-Request-Id"],))
        return database.fetchone()

    assert tuple(wait_for(row, "the usage row").values()) == (path, 400, "not_supported", None)


def test_health_has_no_embedding_server(server: Server) -> None:
    assert server.health()["embedding_server"] is None
