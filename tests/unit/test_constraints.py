"""JSON schemas and grammars that no output can satisfy are refused by path; all others pass."""

from __future__ import annotations

import time
from typing import Any

import pytest
from marshmallow import ValidationError

from mistral_api.errors import InvalidRequest
from mistral_api.wire import ChatCompletionRequest, load
from mistral_api.wire.constraints import JSON_SCHEMA, backward_grammar

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"type": "string", "minLength": 5, "maxLength": 2}, ""),
    ({"type": "array", "items": {"minItems": 3, "maxItems": 1}}, ".items"),
    ({"properties": {"a": {"type": "integer", "minimum": 5, "maximum": 2}}}, ".properties.a"),
    ({"anyOf": [{}, {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6}]}, ".anyOf[1]"),
    ({"type": ["integer", "null"], "minimum": 2.5, "maximum": 2.7}, ""),
    ({"type": "number", "minimum": 3, "exclusiveMaximum": 3}, ""),
    ({"$defs": {"enum": {"enum": []}}}, ".$defs.enum"),
    ({"additionalProperties": {"oneOf": []}}, ".additionalProperties"),
    ({"type": "object", "minProperties": 2, "maxProperties": 1}, ""),
    ({"type": "string", "pattern": "^a{5,2}$"}, ""),
]
SATISFIABLE: list[dict[str, Any]] = [
    {},
    {"type": "string", "minLength": 2, "maxLength": 2, "pattern": "^[{5,2}]\\{5,2}{2,5}$"},
    {"type": "integer", "minimum": 2.5, "exclusiveMaximum": 3.1},
    {"type": "number", "exclusiveMinimum": 5, "exclusiveMaximum": 6},
    {"properties": {"minLength": {"const": 5}, "maxLength": {"const": 2}, "enum": {"type": "null"}}},
    {"const": {"minimum": 5, "maximum": 2}, "default": {"enum": []}, "examples": [{"type": []}]},
    {"minimum": 10**400, "maximum": 10**401, "exclusiveMinimum": True},
    {"minLength": "5", "maxLength": None, "anyOf": {"enum": 1}},
]


@pytest.mark.parametrize(("schema", "place"), CONTRADICTIONS)
def test_contradictory_json_schema_is_refused_by_path(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        JSON_SCHEMA.check(schema)
    issue: Any = refused.value.messages[0]
    assert (issue.code, issue.path) == ("invalid_json_schema", place)


@pytest.mark.parametrize("schema", SATISFIABLE)
def test_satisfiable_json_schema_passes(schema: dict[str, Any]) -> None:
    JSON_SCHEMA.check(schema)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": []}}}}, "schema"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"enum": []}}}]}, "parameters"),
        ({"json_schema": {"enum": []}}, "json_schema"),
    ],
)
def test_contradictory_json_schema_is_refused_in_every_request_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest, match="no value can satisfy it") as refused:
        load(ChatCompletionRequest(), {"messages": [{"role": "user", "content": "Hi"}], **fields})
    assert refused.value.code == "invalid_json_schema"
    assert str(refused.value.param).endswith(param)


@pytest.mark.parametrize(
    ("grammar", "refused"),
    [
        ("root ::= [a-z]{5,2}", True),
        ('root ::= ("a" | "b") { 05 , 2 }', True),
        ("root ::= [a-z]{2,5} # not {5,2}\n", False),
        ('root ::= "{5,2}" [{5,2}] "\\"{5,2}"', False),
    ],
)
def test_grammar_with_a_backward_repetition_is_refused(grammar: str, refused: bool) -> None:
    assert backward_grammar(grammar) is refused


@pytest.mark.parametrize("text", ["[" * 65_000, '"\\' * 32_000, "[\\" * 32_000, "{ 1,  " * 10_000, "\\" * 65_001])
def test_unclosed_grammar_syntax_is_checked_in_linear_time(text: str) -> None:
    begun = time.process_time()
    backward_grammar(text)
    assert time.process_time() - begun < 5
