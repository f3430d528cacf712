"""A request's JSON schemas as what llama.cpp is sent for them, and the requests that are refused for them."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.constraints.schemas.admission import enforced_constraints
from mistral_api.constraints.schemas.remembered import Enforced, Remembered
from mistral_api.errors import InvalidRequest
from mistral_api.generation.enforced_schemas import enforce_schemas
from mistral_api.wire.constraint_places import find_schemas

NUMBER = {"type": "object", "properties": {"n": {"type": "number", "minimum": 0}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": NUMBER}}


def _answered_by_grammar(prompt: str) -> Any:
    """Return the request that is sent for a schema which only a grammar can say, where the prompt ends like this."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "number", "minimum": 0}}}
    payload: Any = {"messages": [{"role": "user", "content": "Hello"}], "response_format": form, "tools": [TOOL]}
    return enforce_schemas(payload, lambda _path, _body: {"prompt": prompt}, chat=True)


def test_schema_that_only_a_grammar_can_say_is_sent_as_one() -> None:
    sent = _answered_by_grammar("<|im_start|>assistant\n")
    assert sent["grammar"].startswith("root ::= ")
    assert "response_format" not in sent
    assert (sent["tool_choice"], sent["chat_template_kwargs"]) == ("none", {"enable_thinking": False})


def test_grammar_lets_a_template_finish_the_thinking_that_it_begins() -> None:
    sent = _answered_by_grammar("<|Assistant|><think>\n")
    first, *rules = sent["grammar"].splitlines()
    assert first == r'root ::= the-thinking "</think>" [ \n]{0,3} the-answer'
    assert any(rule.startswith("the-answer ::= ") for rule in rules)
    assert not any(rule.startswith("root ") for rule in rules)


def test_grammar_of_the_client_is_not_replaced() -> None:
    form = {"type": "json_schema", "json_schema": {"schema": NUMBER}}
    payload: Any = {"messages": [], "response_format": form, "grammar": "root ::= [a-z]"}
    with pytest.raises(InvalidRequest, match="cannot both be given"):
        enforce_schemas(payload, lambda _path, _body: {}, chat=True)


def test_schema_of_a_completion_is_sent_as_a_grammar() -> None:
    payload: Any = {"prompt": "x", "json_schema": {"type": "boolean"}}
    sent = enforce_schemas(payload, lambda _path, _body: {}, chat=False)
    assert set(sent) == {"prompt", "grammar"}
    assert "root ::= boolean" in sent["grammar"]


def _strict(flat: bool) -> dict[str, Any]:
    function = {"name": "f", "parameters": NUMBER, "strict": True}
    return {"type": "function"} | (function if flat else {"function": function})


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"tools": [TOOL, _strict(flat=False)]}, "tools[1].function.parameters"),
        ({"tools": [_strict(flat=True)], "tool_choice": "auto"}, "tools[0].parameters"),
        ({"tools": [{"name": "f", "input_schema": NUMBER, "strict": True}]}, "tools[0].input_schema"),
    ],
)
def test_strict_tool_is_refused_by_its_part_in_every_dialect(body: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        enforced_constraints(find_schemas(body), body)
    assert (refused.value.code, refused.value.param) == ("invalid_json_schema", f"{path}.properties.n.minimum")


def test_strict_tool_whose_call_is_forced_is_enforced_by_a_grammar() -> None:
    body = {"tools": [_strict(flat=False)]}
    (constraint,) = enforced_constraints(find_schemas(body), body, forced=True)
    assert constraint.is_grammar


def test_costly_rewriting_is_refused_as_costly() -> None:
    words = {"enum": [f"{number:04}" for number in range(900)]}
    schema = {"type": "object", "properties": {name: {"allOf": [words]} for name in "abcde"}}
    body = {"json_schema": schema}
    with pytest.raises(InvalidRequest) as refused:
        enforced_constraints(find_schemas(body), body)
    assert (refused.value.code, refused.value.param) == ("constraint_too_costly", "json_schema")


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        (
            {"tools": [_strict(flat=False) | {"type": "function"}], "messages": []},
            "tools[0].function.parameters.properties.n.minimum",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "text"}}}, "messages": []},
            "response_format.json_schema.schema.type",
        ),
    ],
)
def test_schema_that_no_gate_has_seen_is_refused_as_the_gate_does(payload: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        enforce_schemas(payload, lambda _path, _body: {}, chat=True)
    assert (refused.value.code, refused.value.param) == ("invalid_json_schema", param)


def test_schemas_of_a_request_have_a_bound_of_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistral_api.grammars.request_budget.MOST_SECONDS", 0.0)
    body = {"tools": [TOOL]}
    with pytest.raises(InvalidRequest, match="too long to compile together") as refused:
        enforced_constraints(find_schemas(body), body)
    assert refused.value.code == "constraint_too_costly"


def test_compiled_schemas_are_remembered_within_a_bound_of_bytes() -> None:
    remembered = Remembered(most_bytes=100_000)
    for number in range(300):
        remembered.add((bytes([number % 256, number // 256]), "answer"), Enforced(grammar="x" * 1_000))
        assert remembered.find((b"\0\0", "answer"))  # used again and again, so it is kept
    assert remembered.find((bytes([1, 0]), "answer")) is None
    assert remembered.bytes <= 100_000
    remembered.add((b"large", "answer"), Enforced({"description": "x" * 10_000}))
    assert remembered.find((b"large", "answer")) is None
