"""Shapes: each kind checks what its JSON schema describes, and a refusal names the path of the wrong part."""

from __future__ import annotations

import random
import re
from operator import itemgetter
from typing import Any

import jsonschema_rs
import pytest
from marshmallow import ValidationError

from mistral_api.wire.container_shapes import (
    Array,
    Map,
    Object,
    TaggedUnion,
    TextsOrTokens,
    Tuple,
    at_least_one,
    not_null,
    nullable,
    optional,
    required,
    required_or_checked_as,
)
from mistral_api.wire.shapes import (
    ANYTHING,
    TOKEN,
    AnyOf,
    Boolean,
    Component,
    Constant,
    Integer,
    Null,
    Nullable,
    Number,
    Parsed,
    Shape,
    StringEnum,
    Text,
)
from tests.support.schema_values import mutate, random_value

VALUES = 300
_NAME = re.compile("[A-Za-z0-9_-]{1,64}")
_POINT = Object(required(x=Integer(), y=Integer()))
_TAGGED_AFTER_ID = TaggedUnion(
    "kind", {"a": Object(required(x=Text()))}, nullable(id=Text()), required(kind=StringEnum("a"))
)
_CIRCLE, _OTHER = Object(required(radius=Number(0))), Object(nullable(name=Text(1)))
# Shapes of every kind whose JSON schema expresses their whole check.
EXACT: dict[str, Shape] = {
    "null": Null(),
    "nullable text": Nullable(Text(1, 3)),
    "nullable word": Nullable(StringEnum("a", "b")),
    "nullable of any": Nullable(AnyOf(Text(), Integer())),
    "text": Text(),
    "text of 2 to 5": Text(2, 5),
    "text of a pattern": Text(1, 20, _NAME),
    "word": StringEnum("asc", "desc"),
    "one word": StringEnum("asc"),
    "constant text": Constant("text"),
    "constant false": Constant(False),
    "boolean": Boolean(),
    "integer": Integer(),
    "integer of 1 to 9": Integer(1, 9),
    "number": Number(),
    "number up to 2": Number(high=2),
    "token": TOKEN,
    "array of anything": Array(),
    "array of 1 to 3 words": Array(StringEnum("a", "b"), 1, 3),
    "array of arrays": Array(Array(Integer(), 1)),
    "tuple": Tuple(Integer(), Text(), expected="a pair"),
    "map": Map(Text(1, 4), Number(0, 1), most=3),
    "map of any key": Map(ANYTHING, Text(1)),
    "texts or tokens": TextsOrTokens(3, low=1),
    "text or array": AnyOf(Text(1), Array(Text(1), 0, 3), expected="a string or an array"),
    "number or boolean": AnyOf(Number(0), Boolean()),
    "any of objects": AnyOf(_POINT, Object(required(radius=Number(0)))),
    "any object": Object(),
    "required together": _POINT,
    "required in turn": Object(required(x=Integer()), required(y=Integer())),
    "not null": Object(not_null(x=Integer(), y=Text())),
    "not null, checked elsewhere": Object(not_null("x"), nullable(x=Integer())),
    "optional": Object(optional(x=Integer(), y=Text(1))),
    "nullable fields": Object(nullable(x=Integer(), y=AnyOf(Text(), Boolean()))),
    "at least one": Object(nullable(x=Integer(), y=Text()), at_least_one("x", "y")),
    "absent as empty": Object(required_or_checked_as("", kind=StringEnum("circle"))),
    "tagged": TaggedUnion("kind", {"circle": _CIRCLE, "square": _OTHER, "oval": _OTHER}),
    "tagged with more": TaggedUnion(
        "kind",
        {"circle": _CIRCLE, "oval": _OTHER},
        nullable(id=Text()),
        not_null(kind=StringEnum("oval", "circle")),
    ),
    "refined": Integer(0).refined(lambda value: None if value < 5 else Null().check(value)).with_keywords(maximum=4),
}


def _refusal(shape: Shape, value: object) -> Any:
    """What a shape says of a value; None where it lets it through."""
    try:
        shape.check(value)
    except ValidationError as error:
        (issue,) = error.messages
        return issue
    return None


@pytest.mark.parametrize("shape", EXACT.values(), ids=EXACT)
def test_shape_accepts_exactly_what_its_json_schema_allows(shape: Shape) -> None:
    validator, chance = jsonschema_rs.Draft202012Validator(shape.json_schema), random.Random(VALUES)
    outcomes = [0, 0]
    for _ in range(VALUES):
        value = random_value(shape.json_schema, chance)
        for each in (value, mutate(value, chance), mutate(mutate(value, chance), chance)):
            refused = _refusal(shape, each) is not None
            assert validator.is_valid(each) is not refused, each
            outcomes[refused] += 1
    assert min(outcomes) > VALUES / 10


def test_anything_shape_accepts_every_value() -> None:
    assert ANYTHING.json_schema == {}
    assert all(_refusal(ANYTHING, value) is None for value in (None, True, 1, 1.5, "x", [None], {"a": None}))


@pytest.mark.parametrize(
    ("shape", "value", "path", "words"),
    [
        (Array(Array(Integer())), [[1], [2, "x"]], "[1][1]", "expected an integer, but got a string"),
        (Object(required(a=Object(nullable(b=Text())))), {"a": {"b": 3}}, ".a.b", "expected a string"),
        (Array(Object(required(a=Text()))), [{"a": ""}, {}], "[1].a", "Missing required parameter"),
        (Object(optional(a=Text())), {"a": None}, ".a", "got null"),
        (Object(not_null(a=Text())), {"a": None}, ".a", "Missing required parameter"),
        (Map(Text(1), Boolean()), {"k" * 50: 1}, "." + "k" * 40, "expected a boolean"),
        (Map(Text(1), Boolean()), {"": True}, ".", "must not be empty"),
        (Tuple(Text(), Integer(0), expected="a pair"), ["a", -1], "[1]", ">= 0"),
        (Tuple(Text(), Integer(), expected="a pair"), ["a"], "", "expected a pair, but got an array"),
        (AnyOf(Text(), Array(Text()), expected="one or more texts"), 5, "", "expected one or more texts"),
        (AnyOf(Text(), Array(Text())), 5, "", "expected an array"),
        (AnyOf(Text(), Array(Text())), ["a", 5], "[1]", "expected a string"),
        (EXACT["tagged"], {"kind": "cube"}, ".kind", "Supported values for '{param}': 'circle', 'square', 'oval'."),
        (EXACT["tagged"], {"kind": "circle", "radius": -1}, ".radius", ">= 0"),
        (EXACT["tagged"], [], "", "expected an object"),
        (EXACT["at least one"], {"x": None}, ".x", "Missing required parameter"),
        (EXACT["absent as empty"], {}, ".kind", "Invalid value: ''"),
        (TextsOrTokens(2), [[1], [True]], "[1][0]", "got a boolean"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_shape_refusal_names_the_path_and_the_reason(shape: Shape, value: object, path: str, words: str) -> None:
    issue = _refusal(shape, value)
    assert issue.path == path
    assert words in issue.text


@pytest.mark.parametrize(
    ("shape", "value", "path"),
    [
        (Object(required(a=Integer(), b=Integer())), {"a": "x"}, ".b"),
        (Object(required(a=Integer()), required(b=Integer())), {"a": "x"}, ".a"),
        (Object(nullable(b=Integer()), required(a=Integer())), {"b": "x"}, ".b"),
        (Object(required(a=Integer()), nullable(b=Integer())), {"b": "x"}, ".a"),
        (
            TaggedUnion("kind", {"a": Object(required(x=Text()))}, nullable(id=Text()), required(kind=StringEnum("a"))),
            {"id": 3},
            ".id",
        ),
    ],
)
def test_first_declared_of_several_bad_parts_is_refused(shape: Shape, value: object, path: str) -> None:
    assert _refusal(shape, value).path == path


def test_object_rule_runs_after_the_fields_declared_before_it() -> None:
    def ascending(value: dict[str, Any]) -> None:
        if value["low"] > value["high"]:
            Null("invalid_value", "Invalid '{param}': above 'high'.").check(value["low"])

    shape = Object(required(low=Integer(), high=Integer()), ascending)
    assert _refusal(shape, {"low": 1, "high": 2}) is None
    assert "above 'high'" in _refusal(shape, {"low": 2, "high": 1}).text
    assert _refusal(shape, {"low": 2, "high": "x"}).path == ".high"


def test_drop_nulls_removes_nulls_and_leaves_the_original_unchanged() -> None:
    call = Object(required(name=Text()), nullable(id=Text()), drop_nulls=True)
    shape = Array(Object(nullable(text=Text(), calls=Array(call), other=Object()), drop_nulls=True, keep_null="text"))
    value: list[Any] = [
        {"text": None, "calls": [{"name": "f", "id": None, "x": None}], "other": {"x": None}, "y": None},
        {"text": "x", "calls": None},
    ]
    before = repr(value)
    shape.check(value)
    assert shape.convert is not None
    assert shape.convert(value) == [{"text": None, "calls": [{"name": "f"}], "other": {"x": None}}, {"text": "x"}]
    assert repr(value) == before
    assert Array(Object(nullable(text=Text()))).convert is None


def test_any_of_converts_a_value_by_the_matching_alternative() -> None:
    shape = AnyOf(Text(), Object(required(id=Text())).converted(itemgetter("id")))
    assert shape.convert is not None
    assert (shape.convert("a"), shape.convert({"id": "b"})) == ("a", "b")


def test_parsed_shape_checks_the_parsed_value() -> None:
    shape = Parsed(int, Integer(0, 9))
    assert shape.convert is not None
    assert shape.convert("7") == 7
    assert shape.json_schema == {"type": "integer", "minimum": 0, "maximum": 9}
    assert _refusal(shape, "7") is None
    assert "<= 9" in _refusal(shape, "10").text


def test_component_is_referenced_by_name_and_defined_once() -> None:
    point = Component("Point", _POINT)
    line = Object(required(ends=Array(point, 2, 2)))
    assert line.json_schema["properties"]["ends"]["items"] == {"$ref": "#/components/schemas/Point"}
    assert point.definition == _POINT.json_schema
    assert _refusal(line, {"ends": [{"x": 1, "y": 2}, {"x": 1}]}).path == ".ends[1].y"
