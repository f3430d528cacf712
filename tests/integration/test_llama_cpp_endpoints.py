"""llama.cpp's own endpoints through the API, on the real engine."""

from __future__ import annotations

from typing import Any

import orjson
import psycopg2.extensions
import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, running_api, wait_for

FRANCE = {"prompt": "The capital of France is", "n_predict": 6, "temperature": 0}


def _post(server: Server, path: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(server.url + path, json=body, headers=headers, timeout=60)


def _events(answer: requests.Response) -> list[Any]:
    return [orjson.loads(event.removeprefix(b"data: ")) for event in answer.content.split(b"\n\n") if event]


@pytest.mark.parametrize("path", ["/completion", "/completions"])
def test_llama_cpp_completion_is_generated_and_recorded(
    server: Server, session_id: str, database: psycopg2.extensions.cursor, path: str
) -> None:
    answer = _post(server, path, FRANCE | {"session_id": session_id})
    body = answer.json()
    assert "Paris" in body["content"]
    assert (body["tokens_predicted"], body["stop"], body["stop_type"]) == (6, True, "limit")
    assert body["generation_settings"]["temperature"] == 0
    stored = server.stored_messages(session_id)
    assert [(each["role"], each["content"]) for each in stored] == [
        ("user", FRANCE["prompt"]),
        ("assistant", body["content"]),
    ]

    def usage() -> Any:
        database.execute("SELECT * FROM api_usage WHERE session_id = %s", (session_id,))
        return database.fetchone()

    row = wait_for(usage, "the row of the request")
    assert (row["endpoint"], row["status"], row["finish_reason"]) == (path, 200, "length")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (body["tokens_evaluated"], 6)
    assert row["cached_tokens"] == body["timings"]["cache_n"]
    assert row["time_to_first_token_ms"] > 0


def test_llama_cpp_completion_stream_equals_the_whole_response(server: Server) -> None:
    body = FRANCE | {"n_probs": 1, "return_tokens": True}
    whole = _post(server, "/completion", body).json()
    direct = requests.post(server.model_url + "/completion", json=body, headers=server.model_key, timeout=60).json()
    assert whole.keys() == direct.keys()
    assert (whole["content"], whole["tokens"]) == (direct["content"], direct["tokens"])
    assert [each["id"] for each in whole["completion_probabilities"]] == whole["tokens"]

    answer = _post(server, "/completion", FRANCE | {"stream": True})
    assert answer.headers["X-Session-Id"]
    events = _events(answer)
    assert "".join(event["content"] for event in events) == whole["content"]
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    assert not any("prompt_progress" in event for event in events)
    reported = _events(_post(server, "/completion", FRANCE | {"stream": True, "return_progress": True}))
    assert "prompt_progress" in reported[0]


def test_response_fields_limit_the_response_but_not_the_record(server: Server, session_id: str) -> None:
    body = FRANCE | {"response_fields": ["content", "generation_settings/n_predict", "nothing/there"]}
    whole = _post(server, "/completion", body | {"session_id": session_id}).json()
    assert whole.keys() == {"content", "generation_settings/n_predict"}
    assert whole["generation_settings/n_predict"] == 6
    assert _events(_post(server, "/completion", body | {"stream": True}))[-1].keys() == whole.keys()
    stored = server.stored_messages(session_id)
    assert stored[1]["usage"]["completion_tokens"] == 6


def test_several_llama_cpp_prompts_are_completed_in_order(server: Server) -> None:
    body = {"prompt": ["One", [1, "Two"]], "n_predict": 2, "ignore_eos": True}
    answers = _post(server, "/completion", body).json()
    assert [(each["index"], each["tokens_predicted"]) for each in answers] == [(0, 2), (1, 2)]
    assert len(_post(server, "/completion", FRANCE | {"n": 2}).json()) == 2


def test_tokenize_and_detokenize_round_trip_and_are_recorded(
    server: Server, database: psycopg2.extensions.cursor
) -> None:
    given = {"X-Request-Id": "tokenized"}
    tokens = _post(server, "/tokenize", {"content": "Grüße, world", "with_pieces": True}, **given).json()["tokens"]
    assert len(tokens) > 2
    text = _post(server, "/detokenize", {"tokens": [token["id"] for token in tokens]}).json()
    assert text == {"content": "Grüße, world"}

    def row() -> Any:
        database.execute("SELECT * FROM api_usage WHERE client_request_id = 'tokenized'")
        return database.fetchone()

    found = wait_for(row, "the row of the question")
    assert (found["endpoint"], found["status"], found["session_id"]) == ("/tokenize", 200, None)


def test_apply_template_returns_the_prompt(server: Server) -> None:
    prompt = _post(server, "/apply-template", {"messages": [{"role": "user", "content": "Hello!"}]}).json()["prompt"]
    assert "Hello!" in prompt
    assert prompt.endswith("assistant\n")


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("/completion", {}, "prompt", "missing_required_parameter"),
        ("/completion", {"prompt": [1, {}]}, "prompt[1]", "invalid_type"),
        ("/completion", {"prompt": "a", "model": "gpt-9"}, "model", "model_not_found"),
        ("/completion", {"prompt": "a", "temperature": "hot"}, "temperature", "invalid_type"),
        ("/completion", {"prompt": "a b " * 3000}, "prompt", "context_length_exceeded"),
        ("/completion", {"prompt": "a", "logprobs": 101}, "logprobs", "integer_above_max_value"),
        ("/infill", {"input_prefix": "a"}, "input_suffix", "missing_required_parameter"),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}, "model", "not_supported"),
        ("/tokenize", {"content": ["a", -1]}, "content[1]", "integer_below_min_value"),
        ("/tokenize", {"content": [2**31 - 1], "with_pieces": True}, "content[0]", "invalid_value"),
        ("/detokenize", {"tokens": [2**31 - 1]}, "tokens[0]", "invalid_value"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]", "invalid_type"),
        ("/apply-template", {"messages": []}, "messages", "empty_array"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_bad_llama_cpp_request_is_refused_by_field(
    server: Server, path: str, body: Any, param: str | None, code: str
) -> None:
    answer = _post(server, path, body)
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    assert_error_shape(answer.json(), param=param, code=code)


def test_props_hide_paths_from_callers_behind_a_proxy(server: Server) -> None:
    mine = requests.get(f"{server.url}/props", timeout=10).json()
    assert mine["model_path"].endswith(".gguf")
    settings = {"MODEL_SERVER_PORT": str(server.model_port), "ALLOW_ANONYMOUS": "true"}
    with running_api(server.data_dir, **settings) as api:
        theirs = requests.get(f"{api.url}/props", headers={"X-Forwarded-For": "203.0.113.7"}, timeout=10).json()
    assert theirs["total_slots"] == 4
    assert theirs["default_generation_settings"]["n_ctx"] == 2048
    assert "message" in theirs["chat_template"]
    assert mine["model_path"] not in orjson.dumps(theirs).decode()
