"""One KV cache for all slots of the real model server: one request may have it all, and none ends another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.support.processes import Server, running_server, temporary_data_dir

pytestmark = pytest.mark.slow

CONTEXT, SLOTS = 256, 4
SHARE = CONTEXT // SLOTS
SECONDS = 120


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    settings = {"CONTEXT_SIZE": str(CONTEXT), "PARALLEL": str(SLOTS), "SLOT_SAVE_SECONDS": "0"}
    with temporary_data_dir() as data_dir, running_server(data_dir, **settings) as running:
        yield running


def ask(server: Server, question: str, **fields: object) -> Any:
    """Ask for an answer that ends at its limit alone. Return the body of the response."""
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "ignore_eos": True, **fields}
    response = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=SECONDS)
    assert response.status_code == 200, response.text
    return response.json()


def test_one_request_may_have_the_whole_context(server: Server) -> None:
    answer = ask(server, "Count.", max_tokens=3 * SHARE)
    assert answer["usage"]["completion_tokens"] == 3 * SHARE
    assert server.health()["model_server"]["context_size"] == CONTEXT
    assert server.health()["model_server"]["request_context_size"] == CONTEXT


def test_answers_end_at_the_end_of_the_context(server: Server) -> None:
    answer = ask(server, "Count.", max_tokens=10 * CONTEXT)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == pytest.approx(CONTEXT, abs=2)


def test_requests_that_do_not_fit_together_all_get_their_answers(server: Server) -> None:
    with ThreadPoolExecutor(SLOTS) as pool:
        answers = list(pool.map(lambda number: ask(server, f"Count to {number}.", max_tokens=80), range(SLOTS)))
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [80] * SLOTS


def test_requests_without_a_limit_run_at_once_and_end_within_their_shares(server: Server) -> None:
    with ThreadPoolExecutor(SLOTS) as pool:
        answers = list(pool.map(lambda number: ask(server, f"Say {number}."), range(SLOTS)))
    assert {answer["choices"][0]["finish_reason"] for answer in answers} == {"length"}
    assert all(SHARE // 4 <= answer["usage"]["completion_tokens"] <= SHARE for answer in answers)


def test_request_after_one_that_was_cut_off_gets_its_answer(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 200, "ignore_eos": True, "stream": True}
    with requests.post(f"{server.url}/v1/chat/completions", json=body, stream=True, timeout=SECONDS) as stream:
        next(stream.iter_lines())
    assert ask(server, "Say it.", max_tokens=180)["usage"]["completion_tokens"] == 180


def test_choices_that_do_not_fit_together_are_shorter(server: Server) -> None:
    answer = ask(server, "Count.", n=3, max_tokens=CONTEXT)
    assert len(answer["choices"]) == 3
    assert answer["usage"]["total_tokens"] <= CONTEXT


def test_prompt_beyond_the_context_is_refused(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "one two three " * CONTEXT}]}
    response = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=SECONDS)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_without_this_the_model_server_ends_all_requests_that_run(server: Server) -> None:
    def prompt(number: int) -> Any:
        body = {"prompt": f"{number}: " + "one two three " * 22, "n_predict": 20, "ignore_eos": True}
        return requests.post(f"{server.model_url}/completion", json=body, headers=server.model_key, timeout=SECONDS)

    with ThreadPoolExecutor(SLOTS) as pool:
        responses = list(pool.map(prompt, range(SLOTS)))
    assert {response.status_code for response in responses} & {500}
    assert "Context size has been exceeded" in "".join(response.text for response in responses)
    assert ask(server, "Say it.", max_tokens=10)["usage"]["completion_tokens"] == 10
