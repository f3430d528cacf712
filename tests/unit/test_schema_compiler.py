"""JSON schemas as what llama.cpp enforces exactly, or the part for which they are refused."""

from __future__ import annotations

import datetime
import itertools
import random
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from mistral_api.constraints.schemas.enforced import Form, enforce_schema
from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.constraints.schemas.formats import FORMAT_PATTERNS
from mistral_api.constraints.schemas.number_grammar import integer_range, number_range
from mistral_api.constraints.schemas.remembered import Enforced
from mistral_api.constraints.schemas.values import Bound, NumberRange
from tests.support.random_schemas import SchemaMaker

NULL = {"type": "null"}
STRING = {"type": "string"}
ANYTHING = {"type": ["string", "number", "boolean", "null", "object", "array"]}


def _closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    names = {"properties": properties, "required": list(required)}
    return {"type": "object"} | names | {"additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": STRING, "b": {"type": "integer", "minimum": 0}}, "required": ["a"]},
        _closed(("a",), a={"type": ["string", "null"], "maxLength": 3, "description": "A name.", "default": "x"}),
        {"type": "array", "items": {"enum": ["a", 1, None]}, "minItems": 1, "maxItems": 3},
        {"anyOf": [STRING, NULL], "title": "Name"},
        {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs": {"N": {"type": "boolean"}}},
        {"type": "string", "pattern": "^[a-z]+$"},
        {"type": "string", "format": "uri"},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "number"}},
    ],
)
def test_schema_that_llama_cpp_enforces_is_sent_as_it_stands(schema: dict[str, Any]) -> None:
    assert enforce_schema(schema, Form.ANSWER).schema == schema


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        # References: names that llama.cpp does not resolve, and what stands beside them.
        ({"$ref": "#/%24defs/a~1b~0", "$defs": {"a/b~": NULL}}, NULL),
        ({"$ref": "#x", "$defs": {"any": {"$anchor": "x", "type": "null"}}}, NULL),
        ({"$ref": "item", "$defs": {"any": {"$id": "item", "type": "null"}}}, NULL),
        ({"$ref": "#/$defs/s", "$defs": {"s": STRING}, "maxLength": 3}, STRING | {"maxLength": 3}),
        # What holds together.
        ({"allOf": [STRING, {"maxLength": 9}, {"maxLength": 5}]}, STRING | {"maxLength": 5}),
        (
            {"allOf": [{"properties": {"a": NULL}, "required": ["a"]}, {"properties": {"b": NULL}}], "type": "object"},
            _closed(("a",), a=NULL, b=NULL),
        ),
        ({"type": "string", "anyOf": [{"maxLength": 3}, NULL]}, STRING | {"maxLength": 3}),
        (
            {"allOf": [{"pattern": "^[ab]+$"}, {"pattern": "^.{2}$"}], "type": "string"},
            STRING | {"pattern": "^[ab]{2}$"},
        ),
        ({"enum": ["a", 1, None], "type": "string"}, {"enum": ["a"]}),
        ({"enum": [1, 2, 3], "minimum": 2, "not": {"const": 3}}, {"enum": [2]}),
        ({"type": ["string", "null"], "not": {"type": "string"}}, NULL),
        (
            {"not": {"type": ["string", "number", "boolean"]}},
            {"anyOf": [NULL, {"type": "array"}, {"type": "object"}]},
        ),
        # Schemas that are true or false.
        (_closed(("a",), a=True, b=False), _closed(("a",), a=ANYTHING)),
        ({"type": "array", "items": True}, {"type": "array"}),
        ({"type": "array", "items": False}, {"type": "array", "items": ANYTHING, "maxItems": 0}),
        # Arrays of a known beginning.
        ({"prefixItems": [NULL, STRING], "maxItems": 1}, {"type": "array", "prefixItems": [NULL]}),
        ({"items": [NULL, STRING], "additionalItems": False}, {"type": "array", "prefixItems": [NULL, STRING]}),
        # Objects.
        ({"type": "object", "required": ["a"]}, _closed(("a",), a=ANYTHING)),
        ({"properties": {"a": NULL}, "additionalProperties": True}, _closed(a=NULL)),
        (
            {"additionalProperties": NULL, "propertyNames": {"enum": ["a", "b"]}},
            _closed(a=NULL, b=NULL),
        ),
        (
            {"properties": {"a": NULL, "b": NULL}, "minProperties": 1},
            {"anyOf": [_closed(("a",), a=NULL, b=NULL), _closed(("b",), b=NULL)]},
        ),
        (
            {"properties": {"a": NULL, "b": NULL}, "dependentRequired": {"a": ["b"]}},
            {"anyOf": [_closed(b=NULL), _closed(("a", "b"), a=NULL, b=NULL)]},
        ),
        (
            {
                "properties": {"kind": {"enum": ["a", "b"]}, "n": NULL},
                "required": ["kind"],
                "if": {"properties": {"kind": {"const": "a"}}},
                "then": {"required": ["n"]},
            },
            {
                "anyOf": [
                    _closed(("kind", "n"), kind={"enum": ["a"]}, n=NULL),
                    _closed(("kind",), kind={"enum": ["b"]}, n=NULL),
                ]
            },
        ),
        # Numbers.
        ({"type": "integer", "maximum": -3}, {"type": "integer", "minimum": -999999999999999, "maximum": -3}),
        ({"type": "integer", "exclusiveMinimum": 1.5, "maximum": 9}, {"type": "integer", "minimum": 2, "maximum": 9}),
        ({"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 20}, {"enum": [5, 10, 15, 20]}),
        ({"type": "number", "multipleOf": 0.5, "minimum": 0, "exclusiveMaximum": 1.5}, {"enum": [0, 0.5, 1]}),
        ({"type": "number", "multipleOf": 1}, {"type": "integer"}),
        # Annotations stay where the model may read them.
        (_closed(a={"description": "A", "allOf": [NULL]}), _closed(a={"description": "A"} | NULL)),
        # Itself, as an alternative of itself, adds nothing.
        ({"anyOf": [{"$ref": "#"}, STRING]}, STRING),
        # Of these only one can come to an end.
        (
            {"anyOf": [{"$ref": "#/$defs/endless"}, NULL], "$defs": {"endless": _closed(("a",), a={"$ref": "#"})}},
            None,
        ),
    ],
)
def test_schema_is_rewritten(schema: dict[str, Any], sent: dict[str, Any] | None) -> None:
    found = enforce_schema(schema, Form.ANSWER).schema
    assert found is not None
    if sent is not None:
        assert found == sent


def test_schema_that_contains_itself_is_sent_as_a_definition() -> None:
    node: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    sent = enforce_schema(node, Form.ANSWER).schema or {}
    ((name, definition),) = sent.pop("$defs").items()
    assert sent == definition == _closed(next={"$ref": f"#/$defs/{name}"})


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "integer", "multipleOf": 7}, ".multipleOf"),
        (_closed(a={"type": "array", "items": STRING, "uniqueItems": True}), ".properties.a.uniqueItems"),
        ({"type": "array", "contains": NULL}, ".contains"),
        ({"type": "string", "not": {"minLength": 3}}, ".not"),
        ({"oneOf": [STRING, {"type": "string", "maxLength": 3}]}, ".oneOf"),
        ({"oneOf": [STRING, {"properties": {"a": NULL}}]}, ".oneOf"),  # a string fits both
        ({"$ref": "#/$defs/missing"}, ".$ref"),
        ({"$ref": "https://example.com/schema"}, ".$ref"),
        ({"anyOf": [NULL, {"type": "string", "pattern": r"(a)\1"}]}, ".anyOf[1].pattern"),
        ({"allOf": [{"format": "date"}, {"format": "time"}], "type": "string"}, ".allOf[1].format"),
        ({"type": "text"}, ".type"),
        ({"type": "number", "minimum": float("nan")}, ".minimum"),
        ({"enum": [float("inf")]}, ""),
        ({"type": "string", "maxLength": "9"}, ".maxLength"),
        ({"if": {"minimum": 3}, "then": {"maximum": 9}}, ".if"),
        ({"type": "integer", "format": ["date"]}, ".format"),
        ({"enum": ["a"], "pattern": "(a)\\1"}, ".pattern"),
        ({"properties": {"a": NULL}, "patternProperties": {"(a)\\1": NULL}}, ".patternProperties"),
        ({"enum": [1, 3], "multipleOf": 2}, ".enum"),
        # No value, or none that comes to an end.
        ({"allOf": [STRING, NULL]}, ".allOf[0].type"),
        ({"type": "integer", "minimum": 3, "allOf": [{"maximum": 2}]}, ""),
        ({"enum": [1, 2], "type": "string"}, ".enum"),
        ({"not": {"type": ["null", "boolean", "number", "string", "array", "object"]}}, ".not"),
        ({"$ref": "#"}, ""),
        (_closed(("a",), a={"$ref": "#"}), ""),
    ],
)
def test_schema_is_refused_by_its_part(schema: dict[str, Any], path: str) -> None:
    with pytest.raises(SchemaRefused) as refused:
        enforce_schema(schema, Form.ANSWER)
    assert refused.value.path == path


@pytest.mark.parametrize(
    "part",
    [
        {"type": "number", "minimum": 0},
        {"type": "integer", "multipleOf": 7},
        {"type": "array", "items": STRING, "uniqueItems": True},
        {"type": "string", "format": "date"},
        {"type": "string", "minLength": 2},
        {"type": "object", "patternProperties": {"^a": NULL}},
    ],
)
def test_tool_keeps_what_llama_cpp_ignores_for_the_model_to_read(part: dict[str, Any]) -> None:
    schema = _closed(("a",), a=part)
    assert enforce_schema(schema, Form.TOOL).schema == schema


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ({"type": "string", "pattern": r"(a)\1"}, STRING | {"description": r"Pattern: (a)\1"}),
        ({"type": "string", "pattern": r"^\d$"}, STRING | {"pattern": "^[0-9]$"}),
        ({"type": "any"}, ANYTHING),
        ({"$ref": "other.json"}, ANYTHING),
        ({"properties": {"b": NULL}, "additionalProperties": NULL}, _closed(b=NULL)),
    ],
)
def test_tool_gets_what_can_be_enforced(part: dict[str, Any], sent: dict[str, Any]) -> None:
    found = enforce_schema(_closed(("a",), a=part), Form.TOOL).schema or {}
    assert found["properties"]["a"] == sent


def test_no_tool_is_refused_that_is_not_strict() -> None:
    for seed in range(60):
        assert enforce_schema(SchemaMaker(random.Random(seed)).object_schema(), Form.TOOL).schema


def test_strict_tool_is_refused_what_only_a_grammar_can_say() -> None:
    schema = _closed(("a",), a={"type": "number", "minimum": 0.5, "maximum": 1.5})
    assert enforce_schema(schema, Form.ANSWER).grammar
    with pytest.raises(SchemaRefused, match="cannot enforce bounds of numbers") as refused:
        enforce_schema(schema, Form.STRICT_TOOL)
    assert refused.value.path == ".properties.a.minimum"


@pytest.mark.parametrize(
    ("schema", "kept"),
    [
        ({"enum": [1, 2, 3, 4.0], "multipleOf": 2}, [2, 4.0]),
        ({"enum": [0.25, 0.3, "x", None], "multipleOf": 0.25}, [0.25, "x", None]),
        ({"enum": ["nope", "1.2.3.4", 5], "format": "ipv4"}, ["1.2.3.4", 5]),
        ({"enum": ["\u0663", "3"], "pattern": r"^\d$"}, ["3"]),
        ({"enum": ["a\n", "a"], "pattern": "^a$"}, ["a"]),
        ({"enum": ["ü", "1"], "pattern": r"^\p{L}$"}, ["ü"]),
        ({"allOf": [{"enum": [1, "1", True, [1], {"a": 1}]}, {"enum": [1.0, True, [1.0], {"a": 1.0}]}]},
         [1, True, [1], {"a": 1}]),
    ],
)  # fmt: skip
def test_listed_values_are_those_that_fit_what_stands_beside_them(schema: dict[str, Any], kept: list[Any]) -> None:
    assert enforce_schema(schema, Form.ANSWER).schema == {"enum": kept}


_BACKTRACKING = "^(a+)+$"
_LETTERS = "a" * 2_000 + "!"


@pytest.mark.parametrize(
    "schema",
    [
        {"patternProperties": {_BACKTRACKING: NULL}, "properties": {_LETTERS: NULL}, "additionalProperties": False},
        {"enum": [_LETTERS, "aa"], "pattern": _BACKTRACKING},
        {"type": "object", "propertyNames": {"enum": [_LETTERS, "aa"], "pattern": _BACKTRACKING}},
    ],
)
def test_pattern_that_backtracks_for_ever_is_searched_in_linear_time(schema: dict[str, Any]) -> None:
    for form in Form:  # Python's own ``re`` would take longer than the world stands
        enforce_schema(schema, form)


def test_patterns_are_compiled_within_the_time_of_their_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistral_api.constraints.schemas.deadline._MOST_SECONDS", 0.3)
    patterns = {f"p{number}": f"^(?=.{{3,30}}$)(?!.*{number}-)[a-z-]{{1,{30 + number}}}$" for number in range(400)}
    parts: dict[str, Any] = {name: {"type": "string", "pattern": pattern} for name, pattern in patterns.items()}
    schema = _closed((), **parts)
    begin = time.thread_time()
    with pytest.raises(SchemaRefused, match="takes too long"):
        enforce_schema(schema, Form.ANSWER)
    assert time.thread_time() - begin < 2


_ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 1.5, 1e300, "x", "(", "http://[#x", [], [[]], [{}], ["x", 1], {}, {"x": []}, {"x": {}}, {"(": True},
)  # fmt: skip
_BASES: tuple[dict[str, Any], ...] = (
    {},
    {"type": "string"},
    {"type": ["object", "number"], "properties": {"x": {}}, "required": ["x"]},
    {"type": "array", "items": {"type": "string"}},
    {"enum": ["x", 1, [], {"x": 1}, None]},
)
_KEYWORDS = (
    "type", "enum", "const", "format", "pattern", "minLength", "maxLength", "minimum", "exclusiveMaximum", "multipleOf",
    "items", "prefixItems", "additionalItems", "contains", "minItems", "maxItems", "uniqueItems", "unevaluatedItems",
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
    "maxProperties", "unevaluatedProperties", "dependentRequired", "dependentSchemas", "dependencies", "not", "if",
    "then", "anyOf", "oneOf", "allOf", "$ref", "$recursiveRef", "$defs", "$id", "$anchor", "title", "description",
)  # fmt: skip


def _odd_schemas() -> Iterator[dict[str, Any]]:
    yield from (base | {key: value} for key, value, base in itertools.product(_KEYWORDS, _ODD_VALUES, _BASES))
    for keyword, value in itertools.product(_KEYWORDS, _ODD_VALUES):
        yield {"not": {keyword: value}}
        yield {"$id": "http://a/b", "$ref": "c#x", "$defs": {"x": {keyword: value}}}
        yield {"if": {"properties": {"x": {"const": 1}}, keyword: value}, "then": {keyword: value}}
        yield {"type": "object", "propertyNames": {keyword: value}, "additionalProperties": {keyword: value}}
        yield {"oneOf": [{keyword: value}, {"type": "null"}], "$defs": {"x": {keyword: value}}}


def test_keyword_of_any_value_is_enforced_or_refused() -> None:
    # The strict forms stop at the first keyword that they refuse; that of a tool goes on.
    for number, schema in enumerate(_odd_schemas()):
        for form in (Form.TOOL, (Form.ANSWER, Form.TEXT, Form.STRICT_TOOL)[number % 3])[: 1 + number % 2]:
            try:
                assert enforce_schema(schema, form) != Enforced(), schema
            except SchemaRefused:
                assert form is not Form.TOOL, schema
            except Exception as error:
                raise AssertionError(schema) from error


def _days() -> Iterator[str]:
    for year in (1, 4, 96, 100, 400, 999, 1000, 1200, 1900, 1999, 2000, 2023, 2024, 2100, 2400, 9600, 9996, 9999):
        for month in range(14):
            yield from (f"{year:04}-{month:02}-{day:02}" for day in (0, 1, 9, 28, 29, 30, 31, 32))


def _is_day(text: str) -> bool:
    try:
        return bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def test_dates_are_those_of_the_calendar() -> None:
    date, moment = re.compile(FORMAT_PATTERNS["date"]), re.compile(FORMAT_PATTERNS["date-time"])
    for day in _days():
        assert bool(date.search(day)) == _is_day(day), day
        assert bool(moment.search(f"{day}T23:59:59.5+01:00")) == (_is_day(day) and day >= "1000"), day


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("time", ["00:00:00Z", "23:59:59.123456-23:59"], ["24:00:00Z", "12:00:00", "12:60:00Z", "12:00:60Z"]),
        ("duration", ["P1D", "PT5M3S", "P2W", "P1DT1H"], ["P", "PT", "1D", "P1M", "PT1H5S"]),
        ("ipv4", ["0.0.0.0", "255.249.10.1"], ["256.1.1.1", "01.1.1.1", "1.1.1", "1.1.1.1.1"]),
        (
            "ipv6",
            ["::", "::1", "1::", "1:2:3:4:5:6:7:8", "fe80::1:2"],
            ["1:2:3", ":::", "1::2::3", "1:2:3:4:5:6:7:8:9"],
        ),
        ("email", ["a@example.org", "a.b+c@x-y.co.uk"], ["a@b", "@x.org", "a..b@x.org", 'a"@x.org']),
        ("hostname", ["a", "a-b.example.org"], ["-a", "a..b", "a_b", ""]),
    ],
)
def test_formats_are_enforced_by_patterns(name: str, valid: list[str], invalid: list[str]) -> None:
    pattern = re.compile(FORMAT_PATTERNS[name])
    assert [text for text in valid if not pattern.search(text)] == []
    assert [text for text in invalid if pattern.search(text)] == []


def _matcher(expression: str) -> re.Pattern[str]:
    """Return a regular expression that matches what an expression in GBNF does, without rules in it."""
    text = re.sub(r'"([^"]*)"', lambda literal: re.escape(literal[1]), expression)
    return re.compile(f"(?:{text.replace(' ', '')})")


def _random_bound(chance: random.Random) -> Decimal:
    if chance.random() < 0.6:
        return Decimal(chance.choice(["0", "1", "-1", "0.5", "-0.25", "99.99", "12345.678", "0.001", "180", "5e-6"]))
    return Decimal(chance.randint(-(10**6), 10**6)).scaleb(-chance.randint(0, 5))


def test_ranges_of_numbers_have_the_numbers_within_their_bounds() -> None:
    chance = random.Random(7)
    for _ in range(400):
        low, high = sorted((_random_bound(chance), _random_bound(chance)))
        bounds = Bound(low, chance.random() < 0.5), Bound(high + 1, chance.random() < 0.5)
        expression = number_range(NumberRange(*bounds))
        assert expression is not None
        matcher = _matcher(expression)
        near = [
            low,
            high + 1,
            *(low + Decimal(chance.randint(-99, 99)).scaleb(-chance.randint(0, 5)) for _ in range(9)),
        ]
        for number in near:
            above = number > low or (number == low and not bounds[0].exclusive)
            below = number < high + 1 or (number == high + 1 and not bounds[1].exclusive)
            text = format(number + 0, "f").replace("-0.0", "0.0") if not number else format(number, "f")
            assert bool(matcher.fullmatch(text)) == (above and below), (bounds, text)


def test_ranges_of_integers_have_the_integers_within_their_bounds() -> None:
    chance = random.Random(8)
    for _ in range(300):
        low, high = sorted(chance.choice([chance.randint(-20, 20), chance.randint(-9999, 9999)]) for _ in range(2))
        matcher = _matcher(integer_range(low, high))
        for number in (low - 1, low, high, high + 1, *(chance.randint(-10_000, 10_000) for _ in range(9))):
            assert bool(matcher.fullmatch(str(number))) == (low <= number <= high), (low, high, number)
