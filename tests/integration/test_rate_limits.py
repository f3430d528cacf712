"""Limits over HTTP: requests and tokens a minute, tokens a day, requests at the same time, and what refuses them."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import openai
import psycopg2.extensions
import pytest
import requests
from openai import OpenAI

from mistral_api.analytics.daily_tokens import MOST_PENDING, DailyTokenReader
from mistral_api.generation.generator import Generator
from mistral_api.recording.exchange import Exchange
from mistral_api.security.api_key import KeyLimits
from mistral_api.security.daily_tokens import DailyTokens
from mistral_api.security.rate_limits import ADDRESS_BUDGET, OWNER_BUDGET
from mistral_api.services import services_of
from mistral_api.web.operations import OPERATIONS
from mistral_api.web.rate_limits import MODEL_ENDPOINTS
from tests.support.error_shape import assert_error_shape
from tests.support.limited_api import LimitedApi, running_limited_api
from tests.support.processes import Server, wait_for
from tests.support.raw_requests import send_request

MESSAGES = [{"role": "user", "content": "Say hello."}]
CHAT = {"messages": MESSAGES, "max_tokens": 8}
ENDLESS = {"messages": MESSAGES, "max_tokens": 1500, "ignore_eos": True, "stream": True}
CHAT_PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[LimitedApi]:
    """An API whose callers have limits, beside the shared stack."""
    with running_limited_api(server) as running:
        yield running


@pytest.fixture
def owner() -> str:
    """An owner whom nobody else has used."""
    return f"owner-{uuid4().hex}"


def _assert_limited(answer: requests.Response, what: str, code: str = "rate_limit_exceeded") -> None:
    assert answer.status_code == 429, answer.text
    assert_error_shape(answer.json(), code=code, type="rate_limit_exceeded", param=None)
    assert what in answer.json()["error"]["message"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["X-Error-Source"] == "api"


def _tokens_used(api: LimitedApi, key: str) -> int:
    """Return how many tokens a key has used of its minute, as the headers of a request tell it."""
    headers = api.send(key, "GET", "/v1/models").headers
    return int(headers["x-ratelimit-limit-tokens"]) - int(headers["x-ratelimit-remaining-tokens"])


# Requests that leave no row of usage, or are refused: each of them is counted.
WORK: list[tuple[str, str, Any]] = [
    ("POST", CHAT_PATH, b"{no JSON"),
    ("POST", CHAT_PATH, {"messages": "no list"}),
    ("POST", "/v1/messages", b"\xff"),
    ("POST", "/v1/messages/count_tokens", {"messages": MESSAGES}),
    ("POST", "/v1/responses/input_tokens", {"input": "Hello"}),
    ("POST", "/tokenize", {"content": "Hello"}),
    ("POST", "/detokenize", {"tokens": [1]}),
    ("POST", "/apply-template", {"messages": MESSAGES}),
    ("GET", "/slots", None),
    ("POST", "/slots/0?action=erase", {}),
    ("POST", "/v1/embeddings", {"input": "Hello"}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/conversations/none", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WORK)
def test_every_kind_of_request_counts(api: LimitedApi, owner: str, method: str, path: str, body: Any) -> None:
    key = api.make_key(owner, requests_per_minute=2)
    for _ in range(2):
        assert api.send(key, method, path, body).status_code != 429
    refused = api.send(key, method, path, body)
    assert refused.status_code == 429
    assert "2 requests a minute" in refused.json()["error"]["message"]


def test_health_and_the_documentation_do_not_count(api: LimitedApi, owner: str) -> None:
    key = api.make_key(owner, requests_per_minute=1)
    for path in ("/health/live", "/openapi.json", "/docs") * 2:
        assert api.send(key, "GET", path).status_code == 200


def test_headers_tell_what_is_left_and_when_to_try_again(api: LimitedApi, owner: str) -> None:
    key = api.make_key(owner, requests_per_minute=3, tokens_per_minute=1000)
    for remaining in ("2", "1", "0"):
        headers = api.send(key, "GET", "/v1/models").headers
        assert headers["x-ratelimit-limit-requests"] == "3"
        assert headers["x-ratelimit-remaining-requests"] == remaining
        assert re.fullmatch(r"(\d+m)?\d+s", headers["x-ratelimit-reset-requests"])
        assert headers["x-ratelimit-limit-tokens"] == headers["x-ratelimit-remaining-tokens"] == "1000"
        assert headers["x-ratelimit-reset-tokens"] == "0s"
    refused = api.send(key, "POST", CHAT_PATH, CHAT)
    _assert_limited(refused, "3 requests a minute")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    api.clock.now += int(refused.headers["Retry-After"])
    assert api.send(key, "GET", "/v1/models").status_code == 200


def test_ollama_clients_get_errors_of_their_own(api: LimitedApi, owner: str) -> None:
    key = api.make_key(owner, requests_per_minute=1)
    body = {"messages": MESSAGES, "options": {"num_predict": 2}}
    answer = api.send(key, "POST", "/api/chat", body)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[-1])["done"] is True
    refused = api.send(key, "POST", "/api/chat", body)
    assert (refused.status_code, list(refused.json())) == (429, ["error"])
    assert int(refused.headers["Retry-After"]) >= 1


def test_callers_without_limits_get_no_headers(api: LimitedApi, owner: str) -> None:
    headers = api.send(api.make_key(owner), "GET", "/v1/models").headers
    assert not [name for name in headers if "ratelimit" in name.lower()]


def test_anthropic_clients_get_errors_and_headers_of_their_own(api: LimitedApi, owner: str) -> None:
    key = api.make_key(owner, requests_per_minute=1, tokens_per_minute=500)
    body = {"messages": MESSAGES, "max_tokens": 4}
    headers = api.send(key, "POST", "/v1/messages", body).headers
    assert headers["anthropic-ratelimit-requests-limit"] == "1"
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"]).tzinfo is not None
    assert headers["anthropic-ratelimit-tokens-remaining"] == "500"
    refused = api.send(key, "POST", "/v1/messages", body)
    assert refused.status_code == 429
    assert refused.json()["type"] == "error"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert int(refused.headers["Retry-After"]) >= 1


# Every route that generates, what it takes, and where its answer tells the tokens.
GENERATIONS: dict[str, tuple[str, dict[str, Any], Callable[[dict[str, Any]], int]]] = {
    "chat": (CHAT_PATH, CHAT, lambda body: body["usage"]["total_tokens"]),
    "choices": (CHAT_PATH, CHAT | {"n": 3}, lambda body: body["usage"]["total_tokens"]),
    "completion": ("/v1/completions", {"prompt": "One", "max_tokens": 5}, lambda body: body["usage"]["total_tokens"]),
    "message": (
        "/v1/messages",
        {"messages": MESSAGES, "max_tokens": 5},
        lambda body: sum(body["usage"].get(f"{kind}_tokens", 0) for kind in ("input", "cache_read_input", "output")),
    ),
    "response": (
        "/v1/responses",
        {"input": "Hello", "max_output_tokens": 16},
        lambda body: body["usage"]["total_tokens"],
    ),
    "llama.cpp": (
        "/completion",
        {"prompt": "One", "n_predict": 5},
        lambda body: body["tokens_evaluated"] + body["tokens_predicted"],
    ),
}


@pytest.mark.parametrize("kind", GENERATIONS)
def test_tokens_of_every_generating_route_are_counted(api: LimitedApi, owner: str, kind: str) -> None:
    path, body, tokens_of = GENERATIONS[kind]
    key = api.make_key(owner, tokens_per_minute=5000)
    answer = api.send(key, "POST", path, body)
    assert answer.status_code == 200, answer.text
    assert _tokens_used(api, key) == tokens_of(answer.json()) > 0


@pytest.mark.parametrize("kind", GENERATIONS)
def test_tokens_of_a_stream_are_counted_at_its_end(api: LimitedApi, owner: str, kind: str) -> None:
    path, body, _ = GENERATIONS[kind]
    key = api.make_key(owner, tokens_per_minute=5000)
    with api.send(key, "POST", path, body | {"stream": True}, stream=True) as answer:
        assert answer.status_code == 200
        assert answer.content
    assert _tokens_used(api, key) > 0


def test_a_key_that_has_used_its_tokens_waits(api: LimitedApi, owner: str) -> None:
    key = api.make_key(owner, tokens_per_minute=10)
    assert api.send(key, "POST", CHAT_PATH, CHAT).status_code == 200
    refused = api.send(key, "POST", CHAT_PATH, CHAT)
    _assert_limited(refused, "10 tokens a minute")
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    api.clock.now += int(refused.headers["Retry-After"])
    assert api.send(key, "GET", "/v1/models").status_code == 200


def test_tokens_of_a_stream_whose_client_leaves_are_counted(api: LimitedApi, owner: str) -> None:
    key = api.make_key(owner, tokens_per_minute=100_000)
    with _open_stream(api, key, 5):
        assert _tokens_used(api, key) == 0
    used = wait_for(lambda: _tokens_used(api, key), "counted tokens")
    assert 5 < used < 1500


@contextlib.contextmanager
def _open_stream(api: LimitedApi, key: str | None, chunks: int = 1) -> Iterator[None]:
    """Hold a stream open that does not end by itself, after so many chunks of it have come."""
    with api.send(key, "POST", CHAT_PATH, ENDLESS, stream=True) as answer:
        assert answer.status_code == 200
        # The connection is closed where nothing refers to this any more.
        lines = answer.iter_lines(chunk_size=1)
        for _ in range(chunks):
            while not next(lines).startswith(b"data: {"):
                pass
        yield


def test_an_sdk_client_sees_its_own_kind_of_error(api: LimitedApi, owner: str) -> None:
    key = api.make_key(owner, requests_per_minute=1)
    with OpenAI(base_url=f"{api.url}/v1", api_key=key, max_retries=0) as client:
        client.models.list()
        with pytest.raises(openai.RateLimitError) as refused:
            client.models.list()
    assert refused.value.code == "rate_limit_exceeded"


def _wait_until_limited(send: Callable[[], requests.Response]) -> requests.Response:
    """Send a request until it is refused for a limit. Return that answer."""
    return _wait_for_answer(send, lambda status: status == 429)


def _wait_until_served(send: Callable[[], requests.Response]) -> requests.Response:
    """Send a request until it is not refused for a limit. Return that answer."""
    return _wait_for_answer(send, lambda status: status != 429)


def _wait_for_answer(send: Callable[[], requests.Response], is_wanted: Callable[[int], bool]) -> requests.Response:
    answers: list[requests.Response] = []

    def is_answered() -> bool:
        answers.append(send())
        return is_wanted(answers[-1].status_code)

    wait_for(is_answered, "the answer", 15)
    return answers[-1]


class TestTokensOfTheDay:
    """They hold across restarts and processes, for they are read from the database."""

    def test_an_exhausted_budget_is_refused_until_midnight_without_a_retry(self, api: LimitedApi, owner: str) -> None:
        key = api.make_key(owner, tokens_per_day=10)
        assert api.send(key, "POST", CHAT_PATH, CHAT).status_code == 200
        with OpenAI(base_url=f"{api.url}/v1", api_key=key, max_retries=5) as client:
            began = time.monotonic()
            with pytest.raises(openai.RateLimitError) as refused:
                client.models.list()
            assert time.monotonic() - began < 15
        assert refused.value.code == "budget_exceeded"
        _assert_limited(api.send(key, "POST", CHAT_PATH, CHAT), "10 tokens of this day", "budget_exceeded")
        assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 86_400

    def test_another_process_and_a_restarted_one_know_what_was_used(
        self, api: LimitedApi, server: Server, owner: str
    ) -> None:
        used = api.send(api.make_key(owner), "POST", CHAT_PATH, CHAT).json()["usage"]["total_tokens"]
        with running_limited_api(server) as restarted:
            key = restarted.make_key(owner, tokens_per_day=used)
            answer = _wait_until_limited(lambda: restarted.send(key, "GET", "/v1/models"))
            _assert_limited(answer, f"{used} tokens of this day", "budget_exceeded")
            generous = restarted.make_key(owner, tokens_per_day=used + 1)
            assert restarted.send(generous, "GET", "/v1/models").status_code == 200

    def test_exchanges_that_are_delivered_while_they_are_read_count_once(
        self, server: Server, owner: str, database: psycopg2.extensions.cursor
    ) -> None:
        """The journal is read before the database, so they are found in both."""
        with running_limited_api(server) as api:
            services, ended = services_of(api.app.extensions), list[Exchange]()
            services.recorder.on_end = ended.append
            used = [
                api.send(key, "POST", CHAT_PATH, CHAT).json()["usage"]["total_tokens"]
                for key in (api.make_key(owner), None)
            ]
            by_key, by_address = ended
            # Others of this machine have used tokens today: from here on the second one comes from elsewhere.
            by_address.client_address = address = "192.0.2.7"
            move = "UPDATE api_usage SET client_address = %s WHERE request_id = ANY(%s::uuid[])"

            def are_delivered() -> bool:
                database.execute(move, (address, [str(each.id) for each in ended]))
                return database.rowcount == len(ended)

            wait_for(are_delivered, "the exchanges in the database")
            daily, names = DailyTokens(), [OWNER_BUDGET + by_key.owner, ADDRESS_BUDGET + address]
            assert [daily.used(name) for name in names] == [0, 0]
            for pending in (ended, list[Exchange]()):
                assert DailyTokenReader(daily, services.database_reads, {MOST_PENDING: pending}.get).read()
                assert [daily.used(name) for name in names] == used

    def test_tokens_of_another_process_count_within_seconds(self, api: LimitedApi, server: Server, owner: str) -> None:
        with running_limited_api(server) as other:
            key = other.make_key(owner, tokens_per_day=30)
            assert other.send(key, "GET", "/v1/models").status_code == 200
            for _ in range(4):
                assert api.send(api.make_key(owner), "POST", CHAT_PATH, CHAT).status_code == 200
            _wait_until_limited(lambda: other.send(key, "GET", "/v1/models"))

    def test_an_address_has_a_budget_too(self, server: Server) -> None:
        with running_limited_api(server, KeyLimits(tokens_per_day=1)) as first:
            first.send(None, "POST", CHAT_PATH, CHAT)
            assert first.send(None, "POST", CHAT_PATH, CHAT).json()["error"]["code"] == "budget_exceeded"
        with running_limited_api(server, KeyLimits(tokens_per_day=1)) as restarted:
            _wait_until_limited(lambda: restarted.send(None, "GET", "/v1/models"))


class TestConcurrentRequests:
    """A request holds its place until its end, whatever that is."""

    @pytest.fixture
    def key(self, api: LimitedApi, owner: str) -> Iterator[str]:
        """A key that may run one request at a time; in the end none is running."""
        yield api.make_key(owner, concurrent_requests=1)
        wait_for(lambda: len(api.limits.running) == 0, "no running request")

    def _assert_free(self, api: LimitedApi, key: str) -> None:
        answer = _wait_until_served(lambda: api.send(key, "POST", "/tokenize", {"content": "a"}))
        assert answer.status_code == 200

    def test_a_stream_holds_its_place_until_its_client_leaves(self, api: LimitedApi, key: str) -> None:
        with _open_stream(api, key):
            for path, body in ((CHAT_PATH, CHAT), ("/tokenize", {"content": "a"})):
                _assert_limited(api.send(key, "POST", path, body), "1 requests at the same time")
            assert api.send(key, "GET", "/v1/models").status_code == 200
        self._assert_free(api, key)

    def test_a_stream_holds_its_place_until_its_end(self, api: LimitedApi, key: str) -> None:
        for _ in range(3):
            answer = _wait_until_served(lambda: api.send(key, "POST", CHAT_PATH, CHAT | {"stream": True}))
            assert answer.content.rstrip().endswith(b"data: [DONE]")

    def test_a_client_that_leaves_before_the_first_byte_frees_its_place(
        self, api: LimitedApi, server: Server, key: str
    ) -> None:
        here = Server(server.process, api.api_port, server.model_port, server.data_dir, server.log_path)
        body = ENDLESS | {"stream": False}
        with send_request(here, CHAT_PATH, body, f"Authorization: Bearer {key}"):
            wait_for(lambda: len(api.limits.running) == 1, "a running request")
            _assert_limited(api.send(key, "POST", CHAT_PATH, CHAT), "same time")
        self._assert_free(api, key)

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            (CHAT_PATH, b"{no JSON", 400),
            (CHAT_PATH, {"messages": []}, 400),
            (CHAT_PATH, CHAT | {"model": "none"}, 404),
            (CHAT_PATH, CHAT | {"stream": True, "messages": [{"role": "user", "content": "word " * 9000}]}, 400),
            ("/v1/responses", {"input": "Hello", "previous_response_id": "resp_none", "background": True}, 400),
            ("/v1/messages", b"", 400),
            ("/slots/0?action=none", {}, 403),
        ],
    )
    def test_a_refused_request_frees_its_place(
        self, api: LimitedApi, key: str, path: str, body: Any, status: int
    ) -> None:
        for _ in range(3):
            answer = _wait_until_served(lambda: api.send(key, "POST", path, body))
            assert answer.status_code == status

    def test_an_unforeseen_failure_frees_its_place(
        self, api: LimitedApi, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("unforeseen")

        monkeypatch.setattr(Generator, "plan", fail)
        for _ in range(3):
            answer = _wait_until_served(lambda: api.send(key, "POST", CHAT_PATH, CHAT))
            assert answer.status_code == 500

    def test_a_background_response_holds_its_place_while_it_runs(self, api: LimitedApi, key: str) -> None:
        body = {"input": "Count.", "background": True, "max_output_tokens": 1500, "ignore_eos": True}
        queued = api.send(key, "POST", "/v1/responses", body).json()
        for _ in range(3):
            _assert_limited(api.send(key, "POST", CHAT_PATH, CHAT), "same time")
            assert api.send(key, "GET", f"/v1/responses/{queued['id']}").status_code == 200
        assert api.send(key, "POST", f"/v1/responses/{queued['id']}/cancel").status_code == 200
        self._assert_free(api, key)

    def test_a_background_response_that_ends_frees_its_place(self, api: LimitedApi, key: str) -> None:
        body = {"input": "Count.", "background": True, "max_output_tokens": 16}
        assert api.send(key, "POST", "/v1/responses", body).status_code == 200
        self._assert_free(api, key)

    def test_followers_have_places_of_their_own(self, api: LimitedApi, key: str) -> None:
        body = {"input": "Count.", "background": True, "max_output_tokens": 1500, "ignore_eos": True}
        response_id = api.send(key, "POST", "/v1/responses", body).json()["id"]
        path = f"/v1/responses/{response_id}?stream=true"
        with api.send(key, "GET", path, stream=True) as answer:
            assert answer.status_code == 200
            _assert_limited(api.send(key, "GET", path), "1 requests at the same time")
            assert api.send(key, "POST", f"/v1/responses/{response_id}/cancel").status_code == 200
            assert answer.content

    def test_a_followed_background_response_holds_one_place(self, api: LimitedApi, owner: str) -> None:
        key = api.make_key(owner, concurrent_requests=2)
        body = {"input": "Count.", "background": True, "stream": True, "max_output_tokens": 1500, "ignore_eos": True}
        with api.send(key, "POST", "/v1/responses", body, stream=True) as answer:
            first = next(line for line in answer.iter_lines(chunk_size=1) if line.startswith(b"data: "))
        response_id = json.loads(first.removeprefix(b"data: "))["response"]["id"]
        assert api.send(key, "POST", "/tokenize", {"content": "a"}).status_code == 200
        assert api.send(key, "POST", f"/v1/responses/{response_id}/cancel").status_code == 200
        wait_for(lambda: len(api.limits.running) == 0, "no running request")


def test_an_address_without_a_key_has_the_limits_of_the_settings(server: Server, owner: str) -> None:
    with running_limited_api(server, KeyLimits(requests_per_minute=2, concurrent_requests=1)) as api:
        with _open_stream(api, None):
            _assert_limited(api.send(None, "POST", CHAT_PATH, CHAT), "Your address has reached its limit of 1 requests")
        wait_for(lambda: len(api.limits.running) == 0, "no running request")
        assert api.send(None, "GET", "/v1/models").headers["x-ratelimit-remaining-requests"] == "0"
        _assert_limited(api.send(None, "GET", "/v1/models"), "2 requests a minute")
        assert api.send(api.make_key(owner), "GET", "/v1/models").status_code == 200


def test_requests_that_ask_the_model_server_are_those_that_hold_a_place() -> None:
    asking = {
        endpoint for endpoint, operation in OPERATIONS.items() if operation.has_body and "502" in operation.statuses
    }
    assert asking == MODEL_ENDPOINTS
