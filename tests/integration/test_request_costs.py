"""Costly requests are refused by name before the model server is asked; it answers others meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests
from openai import OpenAI

from tests.support.error_shape import assert_error_shape
from tests.support.openai_clients import openai_client
from tests.support.processes import Server, processes_of, running_server, temporary_data_dir, wait_for

HELLO = [{"role": "user", "content": "Hi"}]
LONG = "word " * ((19 << 20) // 5)
# Under the bound of the demo model's 2048 tokens, of at most 162 bytes each, but far more than they hold.
NEAR = "word " * (320 << 10 >> 3)
# Other tests run beside these.
ANSWER_SECONDS = 5.0
# To read such a text takes a fraction of it, to count its tokens takes many times as much.
REFUSAL_CPU_SECONDS = 1.0


def many(count: int) -> dict[str, int]:
    return {f"key{number}": number for number in range(count)}


def biases(count: int) -> dict[str, int]:
    return {str(number): 1 for number in range(count)}


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": HELLO, "max_tokens": 1, **fields}


def require_quick_answer(server: Server, http: requests.Session) -> None:
    began = time.monotonic()
    answer = http.post(f"{server.url}/v1/chat/completions", json=chat(), timeout=30)
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < ANSWER_SECONDS


def cpu_seconds(server: Server) -> float:
    """Return how long all processes of the stack have computed: time that other programs do not add to."""
    spent = 0.0
    for process in processes_of(server.data_dir):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent += sum(process.cpu_times()[:2])
    return spent


def require_refusal(answer: requests.Response, code: str, param: str | None) -> None:
    assert answer.status_code == 400, answer.text[:500]
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert answer.headers["X-Error-Source"] == "api"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (chat() | many(80_000), "object_above_max_properties", None),
        (chat(chat_template_kwargs=many(40_000)), "object_above_max_properties", "chat_template_kwargs"),
        (chat(chat_template_kwargs=many(1000)), "invalid_value", "chat_template_kwargs"),
        (chat(logit_bias=biases(40_000)), "object_above_max_properties", "logit_bias"),
        (chat(logit_bias=biases(1024 + 1)), "object_above_max_properties", "logit_bias"),
        (chat(logit_bias=[[number, 1] for number in range(40_000)]), "array_above_max_length", "logit_bias"),
        (chat(samplers=["typ_p"] * 100), "array_above_max_length", "samplers"),
        (chat(stop=["x" * 100_000]), "string_above_max_length", "stop[0]"),
        (chat(n_discard=-1), "integer_below_min_value", "n_discard"),
        (chat(messages=[HELLO[0] | many(1000)]), "object_above_max_properties", "messages[0]"),
    ],
)
def test_costly_fields_are_refused_and_others_are_answered_at_once(
    server: Server, http: requests.Session, body: Any, code: str, param: str | None
) -> None:
    require_refusal(http.post(f"{server.url}/v1/chat/completions", json=body, timeout=30), code, param)
    require_quick_answer(server, http)


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b'{"messages": [{"role": "user", "content": "Hi", "content": "Ho"}]}', "duplicate_key", "messages[0].content"),
        (b'{"messages": ' + b"[" * 101 + b"]" * 101 + b"}", "invalid_value", "messages"),
        (b'{"messages": [' + b"{}," * 600_000 + b"{}]}", "array_above_max_length", None),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/conversations", "/tokenize"])
def test_bodies_out_of_bounds_are_refused_on_every_route(
    server: Server, http: requests.Session, path: str, content: bytes, code: str, param: str | None
) -> None:
    answer = http.post(server.url + path, data=content, timeout=30)
    assert answer.status_code == 400
    assert_error_shape(answer.json(), code=code, param=param)


@pytest.mark.usefixtures("idle_slots")
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", chat(messages=[{"role": "user", "content": LONG}]), "messages[0].content"),
        ("/v1/chat/completions", chat(messages=[{"role": "assistant", "content": LONG}, *HELLO]), "messages"),
        (
            "/v1/chat/completions",
            chat(tools=[{"type": "function", "function": {"name": "f", "description": LONG}}]),
            "messages",
        ),
        (
            "/v1/chat/completions",
            chat(messages=[{"role": "user", "content": LONG}], truncation="auto"),
            "messages",
        ),
        ("/v1/completions", {"prompt": LONG}, "prompt"),
        ("/v1/completions", {"prompt": ["Hi", LONG]}, "prompt[1]"),
        ("/completion", {"prompt": LONG}, "prompt"),
        ("/infill", {"input_prefix": LONG, "input_suffix": ""}, "input_prefix"),
        ("/v1/responses", {"input": LONG}, "input"),
        ("/v1/responses", {"input": LONG, "truncation": "auto"}, "input"),
        ("/v1/responses/input_tokens", {"input": LONG}, "input"),
        ("/v1/messages", {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1}, "messages"),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
        ("/apply-template", {"messages": [{"role": "user", "content": LONG}]}, "messages[0].content"),
    ],
)
def test_text_that_no_context_could_hold_is_refused_on_every_route(
    server: Server, http: requests.Session, path: str, body: Any, param: str
) -> None:
    before = cpu_seconds(server)
    answer = http.post(server.url + path, json=body, timeout=60)
    require_refusal(answer, "context_length_exceeded", param)
    assert cpu_seconds(server) - before < REFUSAL_CPU_SECONDS
    require_quick_answer(server, http)


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/tokenize", {"content": "x" * (2**19 + 1)}, "string_above_max_length", "content"),
        ("/tokenize", {"content": [1, "x" * 2**18, "x" * 2**18, "x"]}, "string_above_max_length", "content"),
        ("/detokenize", {"tokens": [1] * (2**17 + 1)}, "array_above_max_length", "tokens"),
    ],
)
def test_tokens_are_counted_for_less_text(
    server: Server, http: requests.Session, path: str, body: Any, code: str, param: str
) -> None:
    require_refusal(http.post(server.url + path, json=body, timeout=30), code, param)


def test_text_that_might_fit_is_for_the_model_server_to_judge(server: Server, http: requests.Session) -> None:
    body = chat(messages=[{"role": "user", "content": NEAR}])
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.headers["X-Error-Source"] == "model-server"
    spaces = chat(messages=[{"role": "user", "content": "Hi" + " " * (200 << 10)}])
    assert http.post(f"{server.url}/v1/chat/completions", json=spaces, timeout=60).status_code in (200, 400)


def test_old_turns_that_no_context_could_hold_are_left_out(server: Server, http: requests.Session) -> None:
    old = [{"role": "user", "content": "word " * 60_000}, {"role": "assistant", "content": "Yes."}] * 20
    body = chat(messages=[*old, *HELLO], truncation="auto")
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] < 200


def test_unknown_fields_are_dropped_without_an_error(server: Server, http: requests.Session) -> None:
    body = chat(made_up={"a": 1}, n_cmpl=0, preserved_tokens=7, sse_ping_interval="often")
    assert http.post(f"{server.url}/v1/chat/completions", json=body, timeout=30).status_code == 200


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A server of two slots, whose answers have at most six tokens, and which passes unknown fields on."""
    with (
        temporary_data_dir() as data_dir,
        running_server(
            data_dir, CONTEXT_SIZE="4096", PARALLEL="2", MAX_OUTPUT_TOKENS="6", PASS_UNKNOWN_FIELDS="true"
        ) as running,
    ):
        yield running


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 100}, {"max_completion_tokens": 2000}, {"n_predict": -1}])
def test_answers_have_at_most_the_tokens_of_the_setting(small: Server, http: requests.Session, limits: Any) -> None:
    story = [{"role": "user", "content": "Tell me a long story."}]
    body = {"messages": story, "ignore_eos": True, **limits}
    answer = http.post(f"{small.url}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 6


def test_every_dialect_ends_an_answer_at_the_most_tokens(small: Server, http: requests.Session) -> None:
    def post(path: str, **body: Any) -> Any:
        answer = http.post(small.url + path, json={"ignore_eos": True, **body}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    legacy = post("/v1/completions", prompt="Once upon a time", max_tokens=500)
    assert (legacy["choices"][0]["finish_reason"], legacy["usage"]["completion_tokens"]) == ("length", 6)
    assert post("/completion", prompt="Once upon a time", n_predict=-1)["tokens_predicted"] == 6
    assert post("/completion", prompt="Once upon a time")["tokens_predicted"] == 6
    assert post("/v1/messages", messages=HELLO, max_tokens=400)["stop_reason"] == "max_tokens"
    response = post("/v1/responses", input="Tell me a long story.", max_output_tokens=300)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["max_output_tokens"] == 300


def test_unknown_fields_reach_the_model_server_where_the_setting_says_so(small: Server, http: requests.Session) -> None:
    answer = http.post(f"{small.url}/v1/chat/completions", json=chat(sse_ping_interval=-5), timeout=30)
    assert answer.status_code == 400
    assert answer.headers["X-Error-Source"] == "model-server"


@pytest.mark.slow
def test_responses_in_the_background_leave_a_slot_to_the_others() -> None:
    with (
        temporary_data_dir() as data_dir,
        running_server(data_dir, CONTEXT_SIZE="4096", PARALLEL="2") as running,
        openai_client(running) as client,
    ):
        _fill_the_background(client)
        wait_for(lambda: running.slots_busy() == 1, "one response that is generated")
        began = time.monotonic()
        model = client.models.list().data[0].id
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=2)
        assert time.monotonic() - began < 2 * ANSWER_SECONDS
        assert running.slots_busy() == 1


def _fill_the_background(client: OpenAI) -> None:
    for _ in range(4):
        client.responses.create(
            input="Tell me a long story.", background=True, extra_body={"ignore_eos": True}, max_output_tokens=1500
        )
