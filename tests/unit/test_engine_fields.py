"""The model server gets the fields that it is known to take, all of them checked, and answers of no more tokens."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.generation.endpoint import CHAT, COMPLETION, OWN_FIELDS, Endpoint
from mistral_api.generation.llama_cpp_endpoint import INFILL, LLAMA_CPP_COMPLETION
from mistral_api.generation.plan import PlanRequest, UpstreamTraits, make_plan
from mistral_api.responses.prepared_response import chat_payload
from mistral_api.upstream.request_limits import RequestLimits
from mistral_api.wire.engine_fields import ANY_ENGINE_CHAT, LLAMA_CPP_CHAT, LLAMA_CPP_PROMPT
from mistral_api.wire.responses import ResponseRequest
from mistral_api.wire.sampling import SERVER_OWNED

HELLO = [{"role": "user", "content": "Hi"}]


def declared(*endpoints: Endpoint) -> set[str]:
    return {name for endpoint in endpoints for name in endpoint.schema.fields}


def sent(endpoint: Endpoint, payload: Any, *, supervised: bool = True, **limits: Any) -> Any:
    traits = UpstreamTraits(supervised, lambda: False, 4, RequestLimits(supervised=supervised, **limits))
    return make_plan(endpoint, PlanRequest(payload), traits, lambda *_: {}).requests[0]


@pytest.mark.parametrize(
    ("table", "endpoints"), [(LLAMA_CPP_CHAT, [CHAT]), (LLAMA_CPP_PROMPT, [COMPLETION, LLAMA_CPP_COMPLETION, INFILL])]
)
def test_what_is_passed_on_is_checked_and_what_is_checked_is_passed_on(
    table: frozenset[str], endpoints: list[Endpoint]
) -> None:
    refused = {name for name, field in CHAT.schema.fields.items() if getattr(field, "shape", None) is SERVER_OWNED}
    assert table == declared(*endpoints) - set(OWN_FIELDS) - refused


def test_no_field_of_a_response_reaches_the_model_server_unchecked() -> None:
    everything: Any = dict.fromkeys(ANY_ENGINE_CHAT - {"text", "reasoning", "include", "tools"}, 1)
    made = {"messages", "response_format", "reasoning_effort", "max_completion_tokens", "logprobs"}
    passed = {name for name in chat_payload(everything, []) if name in LLAMA_CPP_CHAT}
    assert passed - made <= set(ResponseRequest().fields)


@pytest.mark.parametrize(
    ("endpoint", "payload"),
    [(CHAT, {"messages": HELLO}), (COMPLETION, {"prompt": "x"}), (INFILL, {"input_prefix": "x"})],
)
def test_unknown_fields_are_dropped_unless_the_setting_passes_them(endpoint: Endpoint, payload: Any) -> None:
    odd = {"n_cmpl": 3, "speculative.n_max": 9, "made_up": {"a": 1}, "preserved_tokens": ["a"], "min_p": 0.1}
    assert set(sent(endpoint, payload | odd)) & set(odd) == {"min_p"}
    assert set(sent(endpoint, payload | odd, pass_unknown=True)) & set(odd) == set(odd)


def test_another_engine_gets_what_such_engines_are_known_to_take() -> None:
    fields = {"repetition_penalty": 1.1, "stop_token_ids": [1], "service_tier": "auto", "top_k": 5}
    payload = {"messages": HELLO, "chat_template": "{{ x }}", "made_up": 1} | fields
    assert sent(CHAT, payload, supervised=False) == {"messages": HELLO} | fields
    assert set(sent(CHAT, payload)) & set(fields) == {"top_k"}


@pytest.mark.parametrize("wanted", [101, 2**31 - 1, -1])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_a_longer_answer_is_brought_down_to_the_most_tokens(name: str, wanted: int) -> None:
    request = sent(CHAT, {"messages": HELLO, name: wanted}, most_output=lambda: 100)
    assert {
        each: request[each] for each in ("max_tokens", "max_completion_tokens", "n_predict") if each in request
    } == {name: 100}


@pytest.mark.parametrize("wanted", [0, 1, 100])
def test_a_shorter_answer_stays_as_it_is(wanted: int) -> None:
    assert sent(CHAT, {"messages": HELLO, "max_tokens": wanted}, most_output=lambda: 100)["max_tokens"] == wanted


@pytest.mark.parametrize(("endpoint", "name"), [(CHAT, "max_tokens"), (LLAMA_CPP_COMPLETION, "n_predict")])
def test_a_request_without_a_number_gets_the_most_tokens(endpoint: Endpoint, name: str) -> None:
    payload = {"messages": HELLO, "prompt": "x"}
    assert sent(endpoint, payload, most_output=lambda: 100)[name] == 100
    assert name not in sent(endpoint, payload)
