"""Answers from the cache over HTTP: the same for every dialect, recorded like any other, and gone once deleted."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.databases import open_cursor
from tests.support.engine_counts import engine_counts
from tests.support.processes import Server, running_api, running_server, temporary_data_dir, wait_for
from tests.support.redis_server import running_redis

pytestmark = pytest.mark.slow

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module", name="caching")
def _caching() -> Iterator[Server]:
    settings = {"CONTEXT_SIZE": "8192", "CACHE_SECONDS": "300"}
    with temporary_data_dir() as data_dir, running_server(data_dir, **settings) as running:
        yield running


@pytest.fixture(name="word")
def _word() -> str:
    """A word that no other test says."""
    return uuid.uuid4().hex


def _chat(word: str, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": f"Say something about {word}"}
    return {"messages": [message], "max_tokens": 12, "temperature": 0} | more


def _post(server: Server, path: str, body: dict[str, Any]) -> requests.Response:
    answer = requests.post(server.url + path, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def _text(answer: requests.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def test_an_identical_request_is_answered_without_the_model(caching: Server, word: str) -> None:
    first = _post(caching, CHAT, _chat(word))
    assert first.headers["X-Cache"] == "miss"
    generated = engine_counts(caching).predicted
    second = _post(caching, CHAT, _chat(word))
    assert second.headers["X-Cache"] == "hit"
    assert engine_counts(caching).predicted == generated
    one, two = first.json(), second.json()
    assert two["choices"] == one["choices"]
    assert two["usage"] == one["usage"]
    assert two["id"] != one["id"]
    assert two["session_id"] != one["session_id"]


@pytest.mark.parametrize("first_streams", [False, True])
def test_an_answer_is_replayed_as_a_stream_and_as_a_whole(caching: Server, word: str, first_streams: bool) -> None:
    first = _post(caching, CHAT, _chat(word, stream=first_streams))
    assert first.headers["X-Cache"] == "miss"
    whole, stream = _post(caching, CHAT, _chat(word)), _post(caching, CHAT, _chat(word, stream=True))
    assert (whole.headers["X-Cache"], stream.headers["X-Cache"]) == ("hit", "hit")
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert stream.text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(event[6:]) for event in stream.text.split("\n\n")[:-2]]
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    assert "".join(pieces) == _text(whole)
    assert len(pieces) > 3
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk and chunk["usage"] for chunk in chunks)
    with_usage = _post(caching, CHAT, _chat(word, stream=True, stream_options={"include_usage": True}))
    assert with_usage.headers["X-Cache"] == "hit"
    assert '"usage":{' in with_usage.text


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("/v1/completions", lambda word: {"prompt": word, "max_tokens": 6, "temperature": 0, "logprobs": 2}),
        ("/completion", lambda word: {"prompt": word, "n_predict": 6, "seed": 4}),
        (
            "/v1/messages",
            lambda word: {
                "model": "claude",
                "max_tokens": 6,
                "temperature": 0,
                "messages": [{"role": "user", "content": word}],
            },
        ),
        (RESPONSES, lambda word: {"input": word, "max_output_tokens": 16, "temperature": 0}),
        (CHAT, lambda word: _chat(word, logprobs=True, top_logprobs=2)),
        (CHAT, lambda word: _chat(word, n=6)),
        (CHAT, lambda word: _chat(word, temperature=1, seed=7)),
        (CHAT, lambda word: _chat(word, max_tokens=40, tools=[TOOL], tool_choice="required")),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_every_dialect_replays_its_answers(caching: Server, word: str, path: str, make: Any, stream: bool) -> None:
    body = make(word) | {"stream": stream}
    if path == "/v1/messages":
        served = requests.get(f"{caching.url}/v1/models", timeout=10).json()["data"][0]["id"]
        body["model"] = served
    first, second = _post(caching, path, body), _post(caching, path, body)
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    assert _without_own(second.text) == _without_own(first.text)


def _without_own(text: str) -> list[Any]:
    """Return an answer without what every response has for itself."""
    bodies = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [_plain(body) for body in bodies or [json.loads(text)]]


def _plain(value: Any) -> Any:
    own = ("id", "created", "created_at", "completed_at", "session_id", "item_id", "obfuscation")
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if name not in own}
    return [_plain(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("more", [{"temperature": 0.8}, {"temperature": 0.8, "seed": -1}, {"store": False}])
def test_other_requests_are_always_generated(caching: Server, word: str, more: dict[str, Any]) -> None:
    for _ in range(2):
        assert "X-Cache" not in _post(caching, CHAT, _chat(word, **more)).headers


def test_without_cache_seconds_nothing_is_cached(server: Server, word: str) -> None:
    generated = engine_counts(server).predicted
    for _ in range(2):
        assert "X-Cache" not in _post(server, CHAT, _chat(word, ignore_eos=True)).headers
    assert engine_counts(server).predicted > generated + 12


def test_a_request_that_fails_is_not_cached(caching: Server, word: str) -> None:
    bad = _chat(word, json_schema={"$ref": "#/nowhere"})
    for _ in range(2):
        answer = requests.post(caching.url + CHAT, json=bad, timeout=60)
        assert answer.status_code == 400


def test_an_answer_from_the_cache_is_recorded_with_no_generation(caching: Server, word: str) -> None:
    first = _post(caching, CHAT, _chat(word, session_id=f"one-{word}", store=True))
    second = _post(caching, CHAT, _chat(word, session_id=f"two-{word}", store=True))
    assert second.headers["X-Cache"] == "hit"
    assert [each["content"] for each in caching.stored_messages(f"two-{word}")] == [
        f"Say something about {word}",
        _text(first),
    ]
    for answer in (first, second):
        stored = requests.get(f"{caching.url}{CHAT}/{answer.json()['id']}", timeout=30).json()
        assert stored["choices"][0]["message"]["content"] == _text(first)
    embedded = start_embedded_postgres(caching.data_dir)
    with open_cursor(embedded.url) as cursor:
        query = (
            "SELECT session_id, status, prompt_tokens, cached_tokens, completion_tokens, time_to_first_token_ms, "
            "tokens_per_second, finish_reason FROM api_usage WHERE session_id LIKE %s ORDER BY created_at"
        )

        def rows() -> list[Any]:
            cursor.execute(query, (f"%-{word}",))
            found = cursor.fetchall()
            return found if len(found) == 2 else []

        one, two = wait_for(rows, "both rows")
    assert (one[1], two[1]) == (200, 200)
    assert one[3] < one[2]
    assert two[2:5] == (one[2], one[2], one[4])
    assert two[5:] == (None, None, one[7])
    assert one[6] is not None


def test_history_is_part_of_the_request(caching: Server, word: str) -> None:
    body = _chat(word, session_id=f"growing-{word}", use_history=True)
    assert [_post(caching, CHAT, body).headers["X-Cache"] for _ in range(3)] == ["miss", "miss", "miss"]
    other = _chat(word, session_id=f"other-{word}", use_history=True)
    assert _post(caching, CHAT, other).headers["X-Cache"] == "hit"  # another conversation that begins the same
    assert _post(caching, CHAT, other).headers["X-Cache"] == "hit"


def test_a_response_that_continues_another_has_its_history_in_the_key(caching: Server, word: str) -> None:
    ask = {"input": word, "max_output_tokens": 16, "temperature": 0}
    first = _post(caching, RESPONSES, ask).json()
    second = _post(caching, RESPONSES, ask)
    assert second.headers["X-Cache"] == "hit"
    assert second.json()["id"] != first["id"]
    follow = ask | {"previous_response_id": first["id"]}
    assert _post(caching, RESPONSES, follow).headers["X-Cache"] == "miss"
    again = _post(caching, RESPONSES, ask | {"previous_response_id": second.json()["id"]})
    assert again.headers["X-Cache"] == "hit"
    background = _post(caching, RESPONSES, ask | {"background": True}).json()

    def ended() -> Any:
        found = requests.get(f"{caching.url}{RESPONSES}/{background['id']}", timeout=10).json()
        return None if found["status"] in ("queued", "in_progress") else found

    assert wait_for(ended, "the response")["output"][0]["content"] == first["output"][0]["content"]


def test_what_was_deleted_is_generated_anew(caching: Server, word: str) -> None:
    body = _chat(word, session_id=f"deleted-{word}")
    _post(caching, CHAT, body)
    assert _post(caching, CHAT, _chat(word)).headers["X-Cache"] == "hit"
    assert requests.delete(f"{caching.url}/v1/conversations/deleted-{word}", timeout=60).status_code == 200
    assert _post(caching, CHAT, _chat(word)).headers["X-Cache"] == "miss"


def test_a_changed_model_is_asked_again(caching: Server, word: str) -> None:
    _post(caching, CHAT, _chat(word))
    answer = requests.post(f"{caching.url}/lora-adapters", json=[], timeout=30)
    assert answer.status_code == 200, answer.text
    assert _post(caching, CHAT, _chat(word)).headers["X-Cache"] == "miss"


def test_a_restarted_model_server_is_asked_again(caching: Server, word: str) -> None:
    _post(caching, CHAT, _chat(word))
    before = caching.health()["model_server"]["pid"]
    psutil.Process(before).kill()

    def restarted() -> bool:
        health = caching.health()["model_server"]
        return bool(health["state"] == "ready" and health["pid"] != before)

    wait_for(restarted, "the next model server", 60)
    assert _post(caching, CHAT, _chat(word)).headers["X-Cache"] == "miss"
    assert _post(caching, CHAT, _chat(word)).headers["X-Cache"] == "hit"


def test_answers_end_after_their_time_and_redis_shares_them(caching: Server, word: str, tmp_path: Path) -> None:
    """Two API processes in front of one model server: what one has generated the other gives again."""
    with running_redis(tmp_path) as redis:
        settings = {
            "MODEL_SERVER_PORT": str(caching.model_port),
            "CACHE_SECONDS": "8",
            "CACHE_STORAGE_URL": redis.url,
        }
        with running_api(caching.data_dir, **settings) as one, running_api(caching.data_dir, **settings) as two:
            first = _post(one, CHAT, _chat(word, session_id=f"shared-{word}"))
            second = _post(two, CHAT, _chat(word))
            assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
            assert _text(second) == _text(first)
            shared = f"{two.url}/v1/conversations/shared-{word}"
            assert requests.delete(shared, timeout=60).status_code == 200
            assert _post(one, CHAT, _chat(word)).headers["X-Cache"] == "miss"
            # Every process reads the notice of the deletion within a second, and forgets once more.
            wait_for(lambda: _post(one, CHAT, _chat(word)).headers["X-Cache"] == "hit", "an answer that is kept")
            time.sleep(8.2)
            assert _post(one, CHAT, _chat(word)).headers["X-Cache"] == "miss"
