"""The engine, its version and the fingerprint of what generates are the same wherever they are told; so are models."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import psycopg2.extensions
import requests

from tests.support.processes import Server, wait_for

HELLO = [{"role": "user", "content": "Hi"}]


def _post(server: Server, http: requests.Session, path: str, **body: Any) -> requests.Response:
    return http.post(f"{server.url}{path}", json={"max_tokens": 2, **body}, timeout=60)


def _chunks(answer: requests.Response) -> list[dict[str, Any]]:
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(each) for each in data]


def test_all_places_name_the_same_engine(server: Server, http: requests.Session) -> None:
    engine = f"xllamacpp {version('xllamacpp')}"
    health = http.get(f"{server.url}/health", timeout=60).json()
    fingerprint = health["model_server"]["system_fingerprint"]
    assert fingerprint.startswith(engine.replace(" ", "-") + "-")
    assert (health["model_server"]["engine"], health["model_server"]["engine_version"]) == ("bundled", engine)
    assert health["version"] == version("mistral-local-api")
    assert http.get(f"{server.url}/props", timeout=60).json()["build_info"] == engine
    assert f'engine_version="{engine}"' in http.get(f"{server.url}/metrics", timeout=60).text

    chat = _post(server, http, "/v1/chat/completions", messages=HELLO, store=True).json()
    stored = wait_for(lambda: http.get(f"{server.url}/v1/chat/completions/{chat['id']}", timeout=60), "it is stored")
    completion = _post(server, http, "/v1/completions", prompt="Hi").json()
    bodies = [chat, stored.json(), completion]
    for number in (1, 2):
        bodies += _chunks(_post(server, http, "/v1/chat/completions", messages=HELLO, n=number, stream=True))
    assert {body["system_fingerprint"] for body in bodies} == {fingerprint}


def test_every_chunk_of_every_kind_of_stream_has_its_usage(server: Server, http: requests.Session) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    asked: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 8}
    streams: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"messages": HELLO, "n": 2}),
        ("/v1/chat/completions", {"messages": HELLO, "logprobs": True}),
        ("/v1/chat/completions", {"messages": HELLO, "tools": [tool], "tool_choice": "required"}),
        ("/v1/completions", {"prompt": ["Hi", "Ho"]}),
    ]
    for path, body in streams:
        *others, last = _chunks(_post(server, http, path, **asked, **body))
        assert [chunk["usage"] for chunk in others] == [None] * len(others)
        assert others
        assert (last["choices"], last["usage"]["completion_tokens"] > 0) == ([], True)


def test_model_that_was_asked_for_and_refused_is_recorded(
    server: Server, http: requests.Session, database: psycopg2.extensions.cursor
) -> None:
    name = "not-served-" + "x" * 300
    requests_of: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": HELLO, "model": name},
        "/v1/completions": {"prompt": "Hi", "model": "gpt-3"},
        "/v1/responses": {"input": "Hi", "model": "gpt-5"},
        "/v1/messages": {"messages": HELLO, "model": "claude"},
        "/v1/embeddings": {"input": "Hi", "model": "ada"},
    }
    ids = [_post(server, http, path, **body).headers["X-Request-Id"] for path, body in requests_of.items()]
    invalid = _post(server, http, "/v1/chat/completions", messages=[], model="gpt-4")
    nameless = _post(server, http, "/v1/chat/completions", messages=[])
    ids += [invalid.headers["X-Request-Id"], nameless.headers["X-Request-Id"]]

    def rows() -> dict[str, Any] | None:
        database.execute("SELECT request_id, model FROM api_usage WHERE request_id::text = ANY(%s)", (ids,))
        read: list[Any] = database.fetchall()
        found = {str(row["request_id"]): row["model"] for row in read}
        return found if len(found) == len(ids) else None

    found = wait_for(rows, "the requests are recorded")
    recorded = [found[each] for each in ids]
    assert recorded == [name[:128], "gpt-3", "gpt-5", "claude", "ada", "gpt-4", None]
    stats = http.get(f"{server.url}/v1/stats", timeout=60).json()["by_model"]
    gpt = next(each for each in stats if each["model"] == "gpt-5")
    assert gpt["requests"]["failed"] == gpt["requests"]["total"] >= 1
