"""Usage of requests that were cut off, and its sums, beside what the real engine itself has counted.

How llama.cpp counts, and when, is said in ``upstream/token_tally.py``.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import requests
from openai import OpenAI

from mistral_api.embedded.engine.parameters import LARGEST_CPU_BATCH
from tests.support.engine_counts import EngineCounts, engine_counts, most_generated, most_processed
from tests.support.processes import Server, wait_for
from tests.support.raw_requests import send_request
from tests.support.recorded_usage import recorded_usage

pytestmark = pytest.mark.usefixtures("idle_slots")

BODIES: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "/v1/chat/completions": lambda text, most: {"messages": [{"role": "user", "content": text}], "max_tokens": most},
    "/v1/completions": lambda text, most: {"prompt": text, "max_tokens": most},
    "/v1/messages": lambda text, most: {"messages": [{"role": "user", "content": text}], "max_tokens": most},
    "/v1/responses": lambda text, most: {"input": text, "max_output_tokens": most},
    "/completion": lambda text, most: {"prompt": text, "n_predict": most},
}
# They take ten seconds or more to generate.
TOKENS = 1000
# What the engine does of a request after its last word: the batch that runs, and one that was begun before it noticed.
LAST_BATCHES = 2 * LARGEST_CPU_BATCH
# The tokens of the moments until the API and then the engine notice that the client has left.
LAST_TOKENS = 25
CALL = {"type": "function", "function": {"name": "say", "parameters": {"properties": {"word": {"enum": ["a", "b"]}}}}}


def _long_prompt() -> str:
    """Return a text that no cache knows, of more than 1200 tokens: a CPU takes many seconds to read it."""
    return f"{uuid4().hex} " + "word " * 1200


def _send(server: Server, path: str, body: dict[str, Any]) -> tuple[str, Any]:
    """Send a request. Return its id and the connection."""
    request_id = f"cut-{uuid4().hex}"
    return request_id, send_request(server, path, body, f"X-Request-Id: {request_id}")


def _counts(row: dict[str, Any]) -> EngineCounts:
    """Return the counts of a row as the engine would count them; what is not known is none."""
    prompt, cached = row["prompt_tokens"] or 0, row["cached_tokens"] or 0
    return EngineCounts(prompt - cached, cached, row["completion_tokens"] or 0)


def _leave(
    server: Server, path: str, body: dict[str, Any], moment: Callable[[], bool]
) -> tuple[dict[str, Any], EngineCounts]:
    """Send a request and leave at a moment. Return what was recorded, and what the engine has counted."""
    before = engine_counts(server)
    request_id, connection = _send(server, path, body)
    with connection:
        wait_for(moment, "the moment to leave")
    wait_for(lambda: server.slots_busy() == 0, "a freed slot")
    row = recorded_usage(server, request_id)
    assert (row["status"], row["error_code"]) == (499, "client_closed_request")
    return row, engine_counts(server) - before


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", BODIES)
def test_client_that_leaves_while_its_prompt_is_read_has_used_what_was_read(
    server: Server, path: str, stream: bool
) -> None:
    body = BODIES[path](_long_prompt(), TOKENS) | {"stream": stream}
    row, engine = _leave(server, path, body, lambda: most_processed(server) >= LARGEST_CPU_BATCH)
    ours = _counts(row)
    assert LARGEST_CPU_BATCH <= ours.processed <= engine.processed <= ours.processed + LAST_BATCHES
    assert (ours.cached, ours.predicted) == (engine.cached, 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", BODIES)
def test_client_that_leaves_during_the_answer_has_used_the_prompt_and_the_tokens_so_far(
    server: Server, path: str, stream: bool
) -> None:
    body = BODIES[path](f"{uuid4().hex} Count.", TOKENS) | {"stream": stream, "ignore_eos": True}
    row, engine = _leave(server, path, body, lambda: most_generated(server) >= 8)
    ours = _counts(row)
    assert (ours.processed, ours.cached) == (engine.processed, engine.cached)
    assert ours.processed > 10
    assert 0 < ours.predicted <= engine.predicted <= ours.predicted + LAST_TOKENS


# An argument that no model ends early.
LONG_ARGUMENT = {"type": "object", "properties": {"a": {"type": "string", "minLength": 900}}, "required": ["a"]}
RESHAPED: dict[str, dict[str, Any]] = {
    "two choices": {"n": 2},
    "forced call": {
        "tools": [CALL | {"function": CALL["function"] | {"parameters": LONG_ARGUMENT}}],  # type: ignore[operator]
        "tool_choice": "required",
        "ignore_eos": False,
    },
    "log probabilities": {"logprobs": True},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", RESHAPED)
def test_converted_answer_that_is_cut_off_is_counted(server: Server, kind: str, stream: bool) -> None:
    path = "/v1/chat/completions"
    body = BODIES[path](f"{uuid4().hex} Say a word.", TOKENS) | {"stream": stream, "ignore_eos": True} | RESHAPED[kind]
    row, engine = _leave(server, path, body, lambda: most_generated(server) >= 8)
    ours = _counts(row)
    assert (ours.processed, ours.cached) == (engine.processed, engine.cached)
    assert 0 < ours.predicted <= engine.predicted <= ours.predicted + 2 * LAST_TOKENS


def test_tokens_of_characters_that_take_several_are_counted(server: Server) -> None:
    # There is a chunk only for the last token of each of them.
    body = {"prompt": "Smile.", "max_tokens": TOKENS, "stream": True, "grammar": "root ::= [😀-😏]{100,}"}
    before = engine_counts(server)
    request_id, connection = _send(server, "/v1/completions", body)
    received = b""
    with connection:
        while received.count(b"data: ") < 20:
            piece = connection.recv(65536)
            assert piece, received
            received += piece
    wait_for(lambda: server.slots_busy() == 0, "a freed slot")
    ours, engine = _counts(recorded_usage(server, request_id)), engine_counts(server) - before
    assert b"timings" not in received
    assert ours.predicted > 1.8 * received.count(b"data: ")
    assert ours.predicted <= engine.predicted <= ours.predicted + LAST_TOKENS


def test_cancelled_background_response_has_used_what_was_known(server: Server, client: OpenAI, model: str) -> None:
    before, request_id = engine_counts(server), f"cut-{uuid4().hex}"
    queued = client.responses.create(
        model=model,
        input=_long_prompt(),
        background=True,
        max_output_tokens=TOKENS,
        extra_headers={"X-Request-Id": request_id},
    )
    wait_for(lambda: most_processed(server) >= LARGEST_CPU_BATCH, "a part of the prompt")
    assert client.responses.cancel(queued.id).status == "cancelled"
    wait_for(lambda: server.slots_busy() == 0, "a freed slot")
    ours, engine = _counts(recorded_usage(server, request_id)), engine_counts(server) - before
    assert LARGEST_CPU_BATCH <= ours.processed <= engine.processed <= ours.processed + LAST_BATCHES
    assert ours.cached == engine.cached


COMPLETE: list[tuple[str, dict[str, Any]]] = [
    *((path, {}) for path in BODIES),
    *((path, {"stream": True}) for path in BODIES),
    ("/v1/chat/completions", {"n": 2}),
    ("/completion", {"n": 2, "stream": True}),
    ("/v1/completions", {"prompt": ["One two", "Three four five"], "n": 2}),
    ("/v1/chat/completions", {"tools": [CALL], "tool_choice": "required", "max_tokens": 60}),
    ("/v1/messages", {"stream": True, "stop_sequences": ["e", "o", "a", "i", "u", "n"]}),
]
# Refused before, and by, the model server: it has read nothing of them.
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"temperature": 9}),
    ("/v1/completions", {"prompt": "word " * 3000}),
]


def _statistics(server: Server) -> EngineCounts:
    """Return the tokens of the statistics, once everything is recorded."""
    wait_for(lambda: server.health()["recording"]["pending"] == 0, "the delivery of everything")
    tokens = requests.get(f"{server.url}/v1/stats?hours=1", timeout=10).json()["tokens"]
    return EngineCounts(tokens["prompt"] - tokens["cached"], tokens["cached"], tokens["completion"])


@pytest.mark.slow
def test_sums_of_complete_and_refused_requests_are_those_of_the_engine(server: Server) -> None:
    before, recorded_before = engine_counts(server), _statistics(server)
    for path, fields in COMPLETE:
        body = BODIES[path](f"{uuid4().hex} Hello.", 16) | fields
        assert requests.post(server.url + path, json=body, timeout=60).status_code == 200, (path, fields)
    for path, fields in REFUSED:
        body = BODIES[path]("Hello.", 16) | fields
        assert requests.post(server.url + path, json=body, timeout=60).status_code == 400
    assert _statistics(server) - recorded_before == engine_counts(server) - before


def test_prompt_of_more_choices_than_slots_is_counted_once_and_read_by_the_engine_twice(server: Server) -> None:
    path, before, request_id = "/v1/chat/completions", engine_counts(server), f"cut-{uuid4().hex}"
    body = BODIES[path](f"{uuid4().hex} Hello.", 4) | {"n": 6, "ignore_eos": True}
    answer = requests.post(server.url + path, json=body, headers={"X-Request-Id": request_id}, timeout=60)
    row, engine = recorded_usage(server, request_id), engine_counts(server) - before
    assert row["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert engine.processed + engine.cached == 2 * row["prompt_tokens"]
    assert row["completion_tokens"] == engine.predicted == 6 * 4


class _LeavingClient(threading.Thread):
    """A client that sends requests one after the other, and leaves each after a random time."""

    def __init__(self, server: Server, seed: int, requests_each: int) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._chance, self._pause = random.Random(seed), threading.Event()
        self._left = requests_each
        self.request_ids: list[str] = []
        self.start()

    def run(self) -> None:
        for _ in range(self._left):
            path = self._chance.choice(list(BODIES))
            text = _long_prompt() if self._chance.random() < 0.3 else f"{uuid4().hex} Count."
            body = BODIES[path](text, TOKENS) | {"stream": self._chance.random() < 0.5, "ignore_eos": True}
            request_id, connection = _send(self._server, path, body)
            self.request_ids.append(request_id)
            with connection:
                self._pause.wait(self._chance.uniform(0, 3))


@pytest.mark.slow
def test_sums_of_requests_that_were_cut_off_anywhere_are_almost_those_of_the_engine(server: Server) -> None:
    before, recorded_before = engine_counts(server), _statistics(server)
    clients = [_LeavingClient(server, seed, 6) for seed in range(2)]
    for client in clients:
        client.join(timeout=60)
    wait_for(lambda: server.slots_busy() == 0, "freed slots")
    rows = [recorded_usage(server, request_id) for client in clients for request_id in client.request_ids]
    ours, engine = _statistics(server) - recorded_before, engine_counts(server) - before
    assert {row["status"] for row in rows} == {499}
    assert ours == EngineCounts(*(sum(getattr(_counts(row), name) for row in rows) for name in EngineCounts.__slots__))
    # The engine is asked for all of them, but it may not have said anything yet of some.
    unknown = sum(row["prompt_tokens"] is None for row in rows)
    assert ours.processed <= engine.processed <= ours.processed + LAST_BATCHES * len(rows)
    assert ours.cached <= engine.cached <= ours.cached + 40 * unknown
    assert ours.predicted <= engine.predicted <= ours.predicted + LAST_TOKENS * len(rows)
    # How much it is depends on the machine.
    assert min(ours.processed, ours.cached, ours.predicted) > 0
