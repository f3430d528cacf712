"""Constraints that cost too much are refused, and those of ordinary clients are known to be harmless."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.errors import InvalidRequest
from mistral_api.wire import ChatCompletionRequest, CompletionRequest, load
from mistral_api.wire.constraint_places import find_constraints
from mistral_api.wire.schema_parts import SchemaTree
from mistral_api.wire.suspects import SuspectSchema

HI = [{"role": "user", "content": "Hi"}]


def _tool(schema: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def _object_with(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _check(schema: dict[str, Any]) -> dict[str, Any]:
    body = {"messages": HI, "tools": [_tool(schema)]}
    load(ChatCompletionRequest(), body)
    return body


def _refusal(schema: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        _check(schema)
    assert caught.value.code == "constraint_too_costly"
    return caught.value


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        (_object_with(a={"enum": list(range(1001))}), ".properties.a.enum"),
        (_object_with(a={"anyOf": [{"const": number} for number in range(1001)]}), ".properties.a.anyOf"),
        ({"oneOf": [{"type": "string"}] * 1001}, ".oneOf"),
        ({"type": ["string"] * 1001}, ".type"),
        (_object_with(a={"type": ["string"] * 8, "enum": ["a"]}), ".properties.a.type"),
        ({"type": ["string"] * 7, "enum": list(range(600))}, ""),
        (_object_with(**{f"p{number}": {} for number in range(501)}), ".properties"),
        (_object_with(a={"pattern": "^" + "[a-z]*" * 13 + "$"}), ".properties.a.pattern"),
        (_object_with(a={"pattern": "x" * 5_000}), ".properties.a.pattern"),
        (_object_with(a={"pattern": "^(((a{999}){999}){999})$"}), ".properties.a.pattern"),
        (_object_with(**{f"p{number}": {"enum": list(range(900))} for number in range(5)}), ""),
        ({"$defs": {"x": {"items": {"enum": list(range(1001))}}}}, ".$defs.x.items.enum"),
    ],
)
def test_costly_schema_is_refused_with_the_path_of_its_part(schema: dict[str, Any], param: str) -> None:
    assert _refusal(schema).param == f"tools[0].function.parameters{param}"


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= a a a a a a\na ::= " + "[a-z]* " * 8,
        "root ::= " + " | ".join(f'"w{number}"' for number in range(1001)),
        'root ::= "x" (((y{200}){200}){200})\ny ::= "z"',
    ],
    ids=["adjacent", "alternatives", "counts"],
)
def test_costly_grammar_is_refused(grammar: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load(CompletionRequest(), {"prompt": "x", "grammar": grammar})
    assert (caught.value.code, caught.value.param) == ("constraint_too_costly", "grammar")


def _is_harmless(schema: dict[str, Any]) -> bool:
    (constraint,) = find_constraints(_check(schema))
    return constraint.is_harmless()


def _optional(number: int, prefix: str = "p") -> dict[str, Any]:
    return _object_with(**{f"{prefix}{each}": {} for each in range(number)})


@pytest.mark.parametrize(
    "schema",
    [
        _object_with(country={"type": "string", "enum": [f"country {number}" for number in range(250)]}),
        _object_with(**{f"p{number}": {"type": "string", "maxLength": 1000} for number in range(60)}),
        _object_with(path={"type": "string", "pattern": "^/[a-z0-9/_.-]+$"}, line={"type": "integer", "minimum": 1}),
        _object_with(when={"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
        {
            "type": "object",
            "properties": {"todos": {"type": "array", "maxItems": 50, "items": {"$ref": "#/$defs/todo"}}},
            "required": ["todos"],
            "$defs": {"todo": _object_with(status={"enum": ["open", "done"]}, text={"type": "string", "minLength": 1})},
        },
    ],
)
def test_schema_of_an_ordinary_client_is_harmless(schema: dict[str, Any]) -> None:
    assert _is_harmless(schema)


@pytest.mark.parametrize(
    "schema",
    [
        _object_with(a={"enum": [f"word{number}" for number in range(400)]}),
        _object_with(**{f"p{number}": {} for number in range(100)}),
        {"anyOf": [_object_with(a={}) for _ in range(13)]},
        {"$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}]}}, "$ref": "#/$defs/x"},
        _object_with(a={"pattern": "^([a-z]0?|[a-z]1?)*$"}),
        _object_with(a={"minItems": 5_000, "items": {}}),
        {"allOf": [{"anyOf": [_optional(20, f"{a}.{b}.") for b in range(2)]} for a in range(2)]},
        {
            "allOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/y"}],
            "$defs": {"x": _optional(40), "y": _optional(40, "q")},
        },
        _object_with(a={"allOf": [{} for _ in range(300)]}),
    ],
)
def test_schema_between_the_bounds_is_tried_with_its_costly_part(schema: dict[str, Any]) -> None:
    assert not _is_harmless(schema)


def test_trial_begins_at_the_costly_parts_too() -> None:
    words = {"enum": [f"word{number}" for number in range(400)]}
    deep = _object_with(a=words, b={"type": "string", "pattern": "^x(ab|a)*$"}, items={"items": {}})
    schema = _object_with(deep=deep) | {"$defs": {}}
    (constraint,) = find_constraints(_check(schema))
    suspects = constraint.suspect_schemas()
    in_place = {"type": "object", "properties": {"x": words}, "required": ["x"]}
    assert suspects[-1] == SuspectSchema(in_place, once=True)
    assert SuspectSchema({"type": "string", "pattern": "^(ab|a)*$"}) in suspects
    (grammar,) = find_constraints({"grammar": 'root ::= "x" ("a" | "ab")*'})
    assert grammar.suspect_grammars() == ['root ::= "x" ("a" | "ab")*\nroot ::= ("a" | "ab")*\n']


@pytest.mark.parametrize(
    "around",
    [
        lambda words: _object_with(a={"type": "array", "items": words}),
        lambda words: {"type": "object", "additionalProperties": _object_with(a=_object_with(items=words))},
        lambda words: {"type": "object", "patternProperties": {"^x$": words}},
        lambda words: _object_with(a={"$ref": "#/$defs/x"}) | {"$defs": {"x": words}},
        lambda words: _object_with(w=words, a={"type": "array", "items": {"$ref": "#/properties/w"}}),
        lambda words: _object_with(n=_object_with(w=words, n={"$ref": "#/properties/n"})),
    ],
)
def test_long_enum_that_may_be_met_again_and_again_is_tried_so(around: Any) -> None:
    words = {"enum": [f"{number} word" for number in range(400)]}
    (constraint,) = find_constraints(_check(around(words)))
    (suspect,) = constraint.suspect_schemas()
    assert not suspect.once
    assert suspect.schema["items"] == words


def test_long_enum_whose_words_begin_alike_is_tried_as_if_it_were_met_often() -> None:
    words = {"enum": [*(f"{number}" for number in range(50)), *(f"the same {number}" for number in range(350))]}
    (constraint,) = find_constraints(_check(_object_with(a=words)))
    assert [suspect.once for suspect in constraint.suspect_schemas()] == [False]


def test_what_is_met_often_is_tried_before_what_is_met_once() -> None:
    words = {"enum": [f"{number} word" for number in range(400)]}
    schema = _object_with(a=words, b=words | {"title": "b"}, c={"type": "array", "items": words | {"title": "c"}})
    (constraint,) = find_constraints(_check(schema))
    assert [suspect.once for suspect in constraint.suspect_schemas()] == [False, True, True]


def test_references_of_a_part_lead_where_they_did() -> None:
    part = _object_with(n={"$ref": "#/properties/a"}, **{f"p{number}": {} for number in range(70)})
    (constraint,) = find_constraints(_check(_object_with(a=part)))
    (suspect,) = constraint.suspect_schemas()
    reference = suspect.schema["properties"]["n"]["$ref"]
    found = SchemaTree(suspect.schema).target({"$ref": reference})
    assert found["properties"].keys() == part["properties"].keys()
    assert SchemaTree(suspect.schema).target(found["properties"]["n"]) is found


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/default", "default": {"enum": ["a"]}},
        _object_with(a={"$ref": "#/properties/b/examples/0"}, b={"examples": [{"type": "string"}]}),
        _object_with(a={"items": {"$ref": "#/properties/a/const/x"}, "const": {"x": {}}}),
    ],
)
def test_reference_into_data_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _check(schema)
    assert caught.value.code == "invalid_json_schema"
    assert str(caught.value.param).endswith(".$ref")


def test_reference_to_a_property_that_is_called_as_a_keyword_is_none_into_data() -> None:
    assert _is_harmless(_object_with(default={"type": "string"}, enum={"$ref": "#/properties/default"}))


def test_enum_that_is_the_whole_schema_is_harmless_only_where_it_is_short() -> None:
    assert _is_harmless({"enum": [f"word{number}" for number in range(100)]})
    words = {"enum": [f"word{number}" for number in range(101)]}
    half = {"enum": [f"half{number}" for number in range(51)]}
    for schema in (
        words,
        {"$ref": "#/$defs/x", "$defs": {"x": words}},
        {"allOf": [words]},
        {"anyOf": [half, half | {"title": "x"}]},
    ):
        assert not _is_harmless(schema)


def test_constraints_are_found_with_their_paths() -> None:
    schema = _object_with(a={"type": "string"})
    body = {
        "tools": [{"type": "web_search"}, _tool(schema), {"name": "g", "input_schema": schema}],
        "text": {"format": {"type": "json_schema", "schema": schema}},
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        "functions": [{"name": "f", "parameters": schema}],
        "json_schema": schema,
        "grammar": "root ::= [a]",
    }
    found = find_constraints(body)
    assert {each.path for each in found} == {
        "tools[1].function.parameters",
        "tools[2].input_schema",
        "text.format.schema",
        "output_config.format.schema",
        "response_format.json_schema.schema",
        "functions[0].parameters",
        "json_schema",
        "grammar",
    }
    assert len({each.digest for each in found}) == 2
    assert not find_constraints({"messages": HI, "grammar": "", "json_schema": None, "tools": []})


_NAMES = st.text("abcdef", min_size=1, max_size=6)
_LEAVES = st.one_of(
    st.builds(lambda size: {"type": "string", "maxLength": size}, st.integers(1, 2_000)),
    st.builds(lambda words: {"enum": words}, st.lists(st.text(max_size=20), min_size=1, max_size=30, unique=True)),
    st.sampled_from([{"type": "integer"}, {"type": "boolean"}, {"type": ["string", "null"]}]),
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda each: {"type": "array", "items": each}, inner),
        st.builds(lambda each: {"anyOf": each}, st.lists(inner, min_size=1, max_size=4)),
        st.builds(lambda each: {"type": "object", "properties": each}, st.dictionaries(_NAMES, inner, max_size=8)),
    ),
    max_leaves=15,
)


@given(_SCHEMAS)
def test_schemas_of_everyday_size_are_harmless(schema: dict[str, Any]) -> None:
    assert _is_harmless(schema)
    assert _is_harmless(schema)  # now it is known
