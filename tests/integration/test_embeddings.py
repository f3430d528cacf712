"""``/v1/embeddings`` on the real engine: a second supervised model server beside the chat model's."""

from __future__ import annotations

import base64
import math
import os
import signal
import struct
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
import requests
from langchain_openai import OpenAIEmbeddings
from ollama import Client, ResponseError
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types import CreateEmbeddingResponse
from pydantic import SecretStr

from mistral_api.control.server_spec import EMBEDDING_SERVER
from mistral_api.control.status import read_status
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.model_files.served_model import demo_model_path
from tests.support.databases import open_cursor
from tests.support.openai_clients import openai_client
from tests.support.openai_schemas import validate
from tests.support.processes import Server, free_port, read_key, running_server, temporary_data_dir, wait_for
from tests.support.raw_requests import send_request

SIZE = 576
CHAT = "SmolLM2-135M-Instruct.Q4_1"


@pytest.fixture(scope="module")
def embedding_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def embedding(embedding_port: int) -> Iterator[Server]:
    """The whole stack with a second model server."""
    settings = {
        "EMBEDDING_MODEL_PATH": str(demo_model_path()),
        "EMBEDDING_MODEL_ALIAS": "embedder,second-name",
        "EMBEDDING_SERVER_PORT": str(embedding_port),
        "EMBEDDING_CONTEXT_SIZE": "256",
    }
    with temporary_data_dir() as data_dir, running_server(data_dir, CONTEXT_SIZE="2048", **settings) as running:
        assert running.health()["embedding_server"]["state"] == "ready"  # the ready line waits for it
        yield running


@pytest.fixture
def embedder(embedding: Server) -> Iterator[OpenAI]:
    with openai_client(embedding) as made:
        yield made


@pytest.fixture
def usage(embedding: Server) -> Iterator[psycopg2.extensions.cursor]:
    with open_cursor(start_embedded_postgres(embedding.data_dir).url, psycopg2.extras.RealDictCursor) as cursor:
        yield cursor


def _key_of(embedding: Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {read_key(embedding.data_dir, EMBEDDING_SERVER)}"}


def _post(server: Server, body: Any) -> requests.Response:
    return requests.post(f"{server.url}/v1/embeddings", json=body, timeout=60)


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_float_and_base64_embeddings_are_equal_and_have_the_openai_schema(embedding: Server) -> None:
    body = {"model": "embedder", "input": "The cat sat on the mat."}
    floats = _post(embedding, body)
    answer = validate(CreateEmbeddingResponse, floats.content)
    assert (answer.object, answer.model, len(answer.data)) == ("list", "embedder", 1)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 5
    assert len(answer.data[0].embedding) == SIZE
    assert math.hypot(*answer.data[0].embedding) == pytest.approx(1, abs=1e-5)
    encoded = _post(embedding, body | {"encoding_format": "base64", "user": "someone"}).json()["data"][0]["embedding"]
    decoded = list(struct.unpack(f"<{SIZE}f", base64.b64decode(encoded)))
    assert decoded == pytest.approx(answer.data[0].embedding, abs=1e-6)


def test_openai_client_gets_nearer_vectors_for_similar_texts(embedder: OpenAI) -> None:
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The stock market fell sharply."]
    data = embedder.embeddings.create(model="second-name", input=texts).data
    assert [each.index for each in data] == [0, 1, 2]
    near, far = _cosine(data[0].embedding, data[1].embedding), _cosine(data[0].embedding, data[2].embedding)
    assert near > far


def test_more_inputs_than_one_batch_keep_their_order(embedder: OpenAI) -> None:
    texts = [f"number {index}" for index in range(60)]
    whole = embedder.embeddings.create(model="embedder", input=texts)
    assert [each.index for each in whole.data] == list(range(60))
    for index in (0, 30, 59):
        alone = embedder.embeddings.create(model="embedder", input=texts[index]).data[0].embedding
        assert _cosine(alone, whole.data[index].embedding) > 0.999
    assert whole.usage.prompt_tokens >= 120


@pytest.mark.parametrize("n", [3, "x"])
def test_generation_fields_do_not_change_the_usage_of_embeddings(embedding: Server, n: Any) -> None:
    body = {"input": [f"number {index}" for index in range(40)]}  # more than the first batch
    plain, other = _post(embedding, body), _post(embedding, body | {"n": n})
    assert other.status_code == 200, other.text
    assert other.json()["usage"] == plain.json()["usage"]


def test_token_inputs_give_the_same_embeddings_as_texts(
    embedding: Server, embedder: OpenAI, embedding_port: int
) -> None:
    url, key = f"http://127.0.0.1:{embedding_port}/tokenize", _key_of(embedding)
    texts = ["the cat", "a dog barks"]
    asked = [{"content": text, "add_special": True} for text in texts]
    tokens = [requests.post(url, json=each, headers=key, timeout=10).json()["tokens"] for each in asked]
    by_text = embedder.embeddings.create(model="embedder", input=texts)
    for given in (tokens, tokens[0]):
        by_token = embedder.embeddings.create(model="embedder", input=given)
        assert _cosine(by_token.data[0].embedding, by_text.data[0].embedding) > 0.999
    refused = _post(embedding, {"input": [[10**8]]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[0][0]")


def test_fewer_dimensions_are_the_first_ones_scaled_to_length_1(embedder: OpenAI) -> None:
    whole = embedder.embeddings.create(model="embedder", input="x y z").data[0].embedding
    short = embedder.embeddings.create(model="embedder", input="x y z", dimensions=64).data[0].embedding
    length = math.hypot(*whole[:64])
    assert short == pytest.approx([value / length for value in whole[:64]], abs=1e-6)
    with pytest.raises(BadRequestError, match="Expected a value <= 576") as refused:
        embedder.embeddings.create(model="embedder", input="x", dimensions=577)
    assert (refused.value.param, refused.value.code) == ("dimensions", "integer_above_max_value")


@pytest.mark.parametrize(
    ("before", "after", "param"),
    [([], [], "input[0]"), (["short"] * 3, ["also short"], "input[3]")],
    ids=["alone", "between"],
)
def test_overlong_embedding_input_is_refused_by_index(
    embedder: OpenAI, before: list[str], after: list[str], param: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        embedder.embeddings.create(model="embedder", input=[*before, "word " * 600, *after])
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", param)
    assert f"maximum context length is 256 tokens. However, '{param}' resulted in 60" in refused.value.message


def test_embedding_input_of_the_maximum_length_works(embedder: OpenAI) -> None:
    assert embedder.embeddings.create(model="embedder", input=[7] * 256).usage.prompt_tokens == 256


def test_chat_and_embedding_models_are_listed_and_refuse_the_other_task(embedding: Server, embedder: OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in embedder.models.list().data}
    assert list(listed) == [CHAT, "embedder", "second-name"]
    assert (listed[CHAT]["context_window"], listed["embedder"]["context_window"]) == (2048, 256)
    assert listed["embedder"]["state"] == "ready"
    assert embedder.models.retrieve("second-name").id == "second-name"
    with pytest.raises(NotFoundError, match="'embedder'") as missing:
        embedder.embeddings.create(model="no-such-model", input="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(BadRequestError, match="generates no text") as refused:
        embedder.chat.completions.create(model="embedder", messages=[{"role": "user", "content": "Hi"}])
    assert (refused.value.code, refused.value.param) == ("not_supported", "model")
    with pytest.raises(BadRequestError, match=f"'{CHAT}' makes no embeddings. Set EMBEDDING_MODEL_PATH") as chat:
        embedder.embeddings.create(model=CHAT, input="x")
    assert (chat.value.code, chat.value.param) == ("not_supported", "model")
    answer = embedder.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "Hi"}], max_tokens=2)
    assert answer.usage is not None
    assert _post(embedding, {"input": "no model named"}).json()["model"] == "embedder"


def test_embedding_model_refuses_to_rerank(embedding: Server) -> None:
    body = {"query": "q", "documents": ["d"], "model": "embedder"}
    answer = requests.post(f"{embedding.url}/v1/rerank", json=body, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "not_supported")
    assert "Set EMBEDDING_MODEL_PATH to a reranker" in error["message"]


def test_langchain_embeds_documents(embedding: Server) -> None:
    made = OpenAIEmbeddings(
        base_url=f"{embedding.url}/v1", api_key=SecretStr("unused"), model="embedder", check_embedding_ctx_length=False
    )
    query, documents = made.embed_query("the cat"), made.embed_documents(["a dog", "the cat"])
    assert _cosine(query, documents[1]) > 0.999


def test_embedding_requests_record_usage_without_text(embedding: Server, usage: psycopg2.extensions.cursor) -> None:
    answer = _post(embedding, {"model": "embedder", "input": ["secret words", "more"]})
    refused = _post(embedding, {"model": "embedder", "input": ""})
    rows = {}
    for each in (answer, refused):
        query = "SELECT * FROM api_usage WHERE request_id = %s"

        def row(of: requests.Response = each, query: str = query) -> Any:
            usage.execute(query, (of.headers["X-Request-Id"],))
            return usage.fetchone()

        rows[each.status_code] = wait_for(row, "the usage row")
    good, bad = rows[200], rows[400]
    assert (good["endpoint"], good["model"], good["status"]) == ("/v1/embeddings", "embedder", 200)
    assert good["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert (good["session_id"], good["completion_tokens"], good["stream"]) == (None, 0, False)
    assert good["latency_ms"] > 0
    assert (bad["endpoint"], bad["status"], bad["error_code"]) == ("/v1/embeddings", 400, "invalid_value")
    usage.execute("SELECT count(*) AS found FROM messages WHERE content::text LIKE '%secret words%'")
    found = usage.fetchone()
    assert found is not None
    assert list(dict(found).values()) == [0]


def test_disconnect_during_embeddings_frees_the_slots(
    embedding: Server, embedding_port: int, usage: psycopg2.extensions.cursor
) -> None:
    def busy() -> int:
        url, key = f"http://127.0.0.1:{embedding_port}/slots", _key_of(embedding)
        slots = requests.get(url, headers=key, timeout=30).json()
        return sum(slot["is_processing"] for slot in slots)

    body = {"model": "embedder", "input": ["word " * 20] * 2000}
    with send_request(embedding, "/v1/embeddings", body, "X-Request-Id: leaves-early"):
        wait_for(lambda: busy() > 0, "busy slots")

    def recorded() -> Any:
        usage.execute("SELECT status, error_code FROM api_usage WHERE client_request_id = 'leaves-early'")
        return usage.fetchone()

    # The whole request would take a minute and more.
    row = wait_for(recorded, "the record of an abandoned request", 15)
    wait_for(lambda: busy() == 0, "freed slots", 15)
    assert (row["status"], row["error_code"]) == (499, "client_closed_request")


def test_killed_embedding_server_restarts_without_affecting_the_chat_server(embedding: Server) -> None:
    before = embedding.health()
    status = read_status(embedding.data_dir, EMBEDDING_SERVER)
    assert status is not None
    assert before["embedding_server"]["pid"] == status.pid
    assert (before["embedding_server"]["model"], before["status"]) == ("embedder", "ok")
    os.kill(status.pid or 0, signal.SIGKILL)
    # This request waits for the restart, as a chat request would.
    assert _post(embedding, {"model": "embedder", "input": "back again"}).status_code == 200
    wait_for(lambda: embedding.health()["embedding_server"]["restarts"] == 1, "the restart")
    after = embedding.health()
    assert after["embedding_server"]["pid"] not in (None, status.pid)
    assert after["model_server"] == before["model_server"]


@pytest.mark.parametrize(("text", "param"), [("x " * (9 << 20), "input"), (["a", "x " * (9 << 20)], "input[1]")])
def test_input_that_no_context_could_hold_is_refused_before_the_model_server_is_asked(
    embedding: Server, text: Any, param: str
) -> None:
    answer = _post(embedding, {"input": text})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert answer.headers["X-Error-Source"] == "api"
    assert _post(embedding, {"input": "Hi", "made_up": 1}).elapsed.total_seconds() < 10


def test_ollama_client_gets_the_embeddings_of_openais(embedding: Server, embedder: OpenAI) -> None:
    texts = ["What is a panda?", "A bear."]
    same = [each.embedding for each in embedder.embeddings.create(model="embedder", input=texts).data]
    with Client(host=embedding.url, timeout=60) as llama:
        assert [model.model for model in llama.list().models][1:] == ["embedder:latest", "second-name:latest"]
        assert llama.show("embedder").capabilities == ["embedding"]
        answer = llama.embed("embedder:latest", texts)
        assert (answer.model, answer.prompt_eval_count) == ("embedder:latest", 8)
        assert answer.total_duration
        for mine, theirs in zip(answer.embeddings, same, strict=True):
            assert list(mine) == pytest.approx(theirs, abs=1e-3)
        assert [len(each) for each in llama.embed("embedder", texts[0], dimensions=8).embeddings] == [8]
        assert list(llama.embed("embedder", "").embeddings) == []
        alone = embedder.embeddings.create(model="embedder", input=texts[0]).data[0].embedding
        older = llama.embeddings("embedder", texts[0]).embedding
        assert _cosine(list(older), alone) == pytest.approx(math.hypot(*older), rel=1e-3)  # its length is not 1
        assert list(llama.embeddings("embedder", "").embedding) == []


def test_ollama_input_that_is_too_long_is_cut_off_unless_it_may_not(embedding: Server) -> None:
    with Client(host=embedding.url, timeout=60) as llama:
        long = "panda " * 600
        answer = llama.embed("embedder", ["short", long])
        assert [len(each) for each in answer.embeddings] == [SIZE, SIZE]
        with pytest.raises(ResponseError, match=r"input\[1\]") as refused:
            llama.embed("embedder", ["short", long], truncate=False)
        assert refused.value.status_code == 400
