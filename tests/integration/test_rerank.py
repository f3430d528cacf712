"""``/v1/rerank`` on the real engine with a tiny reranker, and embeddings by the chat model's own server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.processes import Server, free_port, running_server, temporary_data_dir
from tests.support.reranker_model import CONTEXT, write_reranker

DOCUMENTS = ["the cat sat", "a dog on the mat", "xyz", "the mat"]


@pytest.fixture(scope="module")
def ranking() -> Iterator[Server]:
    """A stack whose chat model server also embeds, with a reranker beside it."""
    port = str(free_port())
    with temporary_data_dir() as data_dir:
        path = str(write_reranker(data_dir.parent / "tiny-reranker.gguf", with_pooling_type=False))
        settings = {"EMBEDDING_MODEL_PATH": path, "EMBEDDING_SERVER_PORT": port, "CONTEXT_SIZE": "2048"}
        own_mode = {"LLAMA_ARG_EMBEDDINGS": "1", "LLAMA_ARG_POOLING": "mean"}
        with running_server(data_dir, **settings, **own_mode) as running:
            running.wait_for_embedding_server()
            yield running


def _rerank(server: Server, **fields: Any) -> requests.Response:
    body = {"query": "the cat", "documents": DOCUMENTS} | fields
    return requests.post(f"{server.url}/v1/rerank", json=body, timeout=60)


def test_rerank_returns_documents_in_the_order_of_their_scores(ranking: Server) -> None:
    body = _rerank(ranking).json()
    assert (body["object"], body["model"]) == ("list", "tiny-reranker")
    scores = [entry["relevance_score"] for entry in body["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert sorted(entry["index"] for entry in body["results"]) == [0, 1, 2, 3]
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > 20
    for entry in body["results"]:  # each score belongs to its own document
        alone = _rerank(ranking, documents=[DOCUMENTS[entry["index"]]]).json()["results"]
        assert alone[0]["relevance_score"] == pytest.approx(entry["relevance_score"], abs=1e-3)


def test_rerank_returns_the_top_n_documents_with_their_text(ranking: Server) -> None:
    whole = _rerank(ranking).json()["results"]
    objects = [{"text": text, "note": 1} for text in DOCUMENTS]
    best = _rerank(ranking, documents=objects, top_n=2, return_documents=True, model="tiny-reranker").json()["results"]
    assert [entry["index"] for entry in best] == [entry["index"] for entry in whole[:2]]
    assert [entry["document"] for entry in best] == [{"text": DOCUMENTS[entry["index"]]} for entry in best]


def test_rerank_of_many_documents_joins_batches_in_order(ranking: Server) -> None:
    many = [DOCUMENTS[index % 4] for index in range(150)]
    results = _rerank(ranking, documents=many).json()["results"]
    by_text: dict[str, set[float]] = {}
    for entry in results:
        by_text.setdefault(many[entry["index"]], set()).add(round(entry["relevance_score"], 3))
    assert len(results) == 150
    assert all(max(scores) - min(scores) < 0.002 for scores in by_text.values())


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"query": None}, "query", "missing_required_parameter"),
        ({"query": ""}, "query", "invalid_value"),
        ({"documents": []}, "documents", "empty_array"),
        ({"documents": "one"}, "documents", "invalid_type"),
        ({"documents": ["a", 1]}, "documents[1]", "invalid_type"),
        ({"documents": ["a", {"body": "b"}]}, "documents[1].text", "missing_required_parameter"),
        ({"documents": ["a"] * 2049}, "documents", "array_above_max_length"),
        ({"top_n": 0}, "top_n", "integer_below_min_value"),
        ({"documents": ["the cat", "cat " * 200]}, "documents[1]", "context_length_exceeded"),
        ({"model": "nobody"}, "model", "model_not_found"),
    ],
    ids=["no query", "empty query", "none", "a string", "a number", "no text", "too many", "top_n", "long", "model"],
)
def test_bad_rerank_request_is_refused_by_field(ranking: Server, fields: dict[str, Any], param: str, code: str) -> None:
    answer = _rerank(ranking, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (404 if param == "model" else 400, param, code)
    if code == "context_length_exceeded":
        assert f"is {CONTEXT} tokens. However, 'documents[1]' with the query resulted in 20" in error["message"]


def test_chat_model_server_in_embedding_mode_embeds_and_chats(ranking: Server) -> None:
    embeddings = requests.post(f"{ranking.url}/v1/embeddings", json={"input": ["a", "b"]}, timeout=60).json()
    assert embeddings["model"] == "SmolLM2-135M-Instruct.Q4_1"
    assert [len(each["embedding"]) for each in embeddings["data"]] == [576, 576]
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    answer = requests.post(f"{ranking.url}/v1/chat/completions", json=chat, timeout=60)
    assert answer.json()["usage"]["completion_tokens"] > 0


def test_reranker_refuses_embeddings_and_chat(ranking: Server) -> None:
    for path, body in (
        ("embeddings", {"input": "x"}),
        ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    ):
        answer = requests.post(f"{ranking.url}/v1/{path}", json=body | {"model": "tiny-reranker"}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_supported")


def test_document_that_no_context_could_hold_is_refused_before_the_model_server_is_asked(ranking: Server) -> None:
    body = {"query": "Hi", "documents": ["a", "x " * (9 << 20)]}
    answer = requests.post(f"{ranking.url}/v1/rerank", json=body, timeout=60)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "documents[1]")
    assert answer.headers["X-Error-Source"] == "api"
