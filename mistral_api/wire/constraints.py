"""JSON schemas and grammars that constrain what a model generates, within what llama.cpp survives.

Seen on its server:

- Its parsers call themselves for every level of a grammar and every ``$ref`` of a schema. 40 000 nested parentheses, or
  a chain of 50 000 references, overflow the stack and end the process.
- A JSON schema of a string of at least 5 and at most 2 characters becomes the grammar ``char{5,2}``, whose parser never
  ends, and no other request is answered any more. An empty range of integers is a 500, because no next token is
  possible. An array of at least 3 and at most 1 items gets some other number of items.

So a JSON schema that no value can satisfy is refused, and so is a grammar that repeats something ``{5,2}`` times.
What it costs to generate within them is bounded in ``constraint_cost``.

A schema that has passed is remembered by its digest, so that the tools that a client sends with every request are
looked through once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NoReturn

from mistral_api.wire.constraint_cost import (
    check_enum_words,
    check_grammar_cost,
    check_part,
    is_harmless_schema,
    schema_digest,
)
from mistral_api.wire.container_shapes import Object
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.schema_parts import SchemaTree
from mistral_api.wire.shapes import JsonSchema, Text

MOST_GRAMMAR_CHARACTERS = 65_536
MOST_GRAMMAR_LEVELS = 500
MOST_SCHEMA_VALUES = 10_000
# Remembered by 16 bytes each.
MOST_PASSED_SCHEMAS = 10_000

_LENGTHS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
_ALTERNATIVES = ("enum", "anyOf", "oneOf", "allOf", "type")
_FARTHEST = 10**300  # of what a float holds
_REPETITION = re.compile(r"\{\s*0*(\d{1,9})\s*,\s*0*(\d{1,9})\s*\}")
# What is no syntax: escapes and classes, in grammars also strings and comments. What is not closed goes to the end, so
# that nothing is searched twice.
_CLASS = r"\[(?:\\.|[^\]\\])*(?:\]|\\?\Z)|\\."
_NO_PATTERN_SYNTAX = re.compile(_CLASS, re.DOTALL)
_NO_GRAMMAR_SYNTAX = re.compile(_CLASS + r'|"(?:\\.|[^"\\])*(?:"|\\?\Z)|#[^\n]*', re.DOTALL)
_STEPS = {"(": 1, ")": -1}
_CONTAINERS = frozenset((dict, list))


def levels(value: object) -> Iterator[list[Any]]:
    """Yield the objects and arrays of a decoded JSON value level by level, the value itself first."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    while level:
        yield level
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in _CONTAINERS
        ]


def _refuse_contradiction(part: JsonSchema, place: str) -> None:
    for low, high in _LENGTHS:
        if _number(part, low, -math.inf) > _number(part, high, math.inf):
            _refuse_impossible(f"'{low}' is above '{high}'", place)
    _check_range(part, place)
    for keyword in _ALTERNATIVES:
        if part.get(keyword) == []:
            _refuse_impossible(f"'{keyword}' is empty", place)
    if isinstance(part.get("pattern"), str) and _repeats_backward(_NO_PATTERN_SYNTAX.sub("", part["pattern"])):
        _refuse_impossible("its 'pattern' repeats something at least more often than at most", place)


def backward_grammar(text: str) -> bool:
    """Return whether a grammar in GBNF demands ``{5,2}``: at least more than at most."""
    return _repeats_backward(_NO_GRAMMAR_SYNTAX.sub("", text))


def _repeats_backward(syntax: str) -> bool:
    return any(int(low) > int(high) for low, high in _REPETITION.findall(syntax))


def _number(part: JsonSchema, keyword: str, absent: float) -> float:
    """Return a bound; ``absent``, which contradicts nothing, where there is none."""
    value = part.get(keyword)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return absent
    return float(min(max(value, -_FARTHEST), _FARTHEST))


def _check_range(part: JsonSchema, place: str) -> None:
    """Check ``minimum`` and ``maximum`` and their exclusive forms; of integers, whether one lies between them."""
    low, high = _number(part, "minimum", -math.inf), _number(part, "maximum", math.inf)
    above, below = _number(part, "exclusiveMinimum", -math.inf), _number(part, "exclusiveMaximum", math.inf)
    empty = low > high or above >= below or above >= high or low >= below
    kind = part.get("type")
    if not empty and "integer" in (kind if isinstance(kind, list) else [kind]):
        least = max(_rounded(low, math.ceil), _rounded(above, math.floor) + 1)
        most = min(_rounded(high, math.floor), _rounded(below, math.ceil) - 1)
        empty = least > most
    if empty:
        _refuse_impossible("no number is within its bounds", place)


def _rounded(bound: float, direction: Callable[[float], int]) -> float:
    return float(direction(bound)) if math.isfinite(bound) else bound


def _refuse_impossible(why: str, place: str) -> NoReturn:
    refuse("invalid_json_schema", f"Invalid schema for '{{param}}': no value can satisfy it, because {why}.", place)


class _PassedSchemas:
    """Which schemas have passed, by digest, and whether they are harmless. Many threads read and write it."""

    def __init__(self) -> None:
        self._harmless: dict[bytes, bool] = {}

    def is_harmless(self, digest: bytes) -> bool | None:
        """Return whether a schema is harmless; None for one that has not passed, or long ago."""
        return self._harmless.get(digest)

    def add(self, digest: bytes, *, harmless: bool) -> None:
        """Remember a schema that has passed."""
        if len(self._harmless) >= MOST_PASSED_SCHEMAS:
            self._harmless.clear()
        self._harmless[digest] = harmless


_passed_schemas = _PassedSchemas()


def is_known_harmless(schema: JsonSchema, digest: bytes) -> bool:
    """Return whether a schema that has passed its check is harmless; ``digest`` is its own."""
    harmless = _passed_schemas.is_harmless(digest)
    return is_harmless_schema(SchemaTree(schema)) if harmless is None else harmless


def check_schema(schema: JsonSchema) -> None:
    """Refuse a schema that no value can satisfy, or that is too costly. Raises marshmallow's ValidationError."""
    digest = schema_digest(schema)
    if _passed_schemas.is_harmless(digest) is not None:
        return
    if sum(len(each) for level in levels(schema) for each in level) > MOST_SCHEMA_VALUES:
        text = f"Invalid '{{param}}': schema too large. Expected at most {MOST_SCHEMA_VALUES} values."
        refuse("invalid_json_schema", text)
    tree = SchemaTree(schema)
    for part, place in tree.placed:
        _refuse_contradiction(part, place)
        check_part(part, place)
    check_enum_words(tree.parts)
    _check_references(tree)
    _passed_schemas.add(digest, harmless=is_harmless_schema(tree))


def _check_references(tree: SchemaTree) -> None:
    """Refuse a reference into data, such as a default: what it leads to has been checked as no schema."""
    known = {id(part) for part in tree.parts}
    for part, place in tree.placed:
        target = tree.target(part)
        if isinstance(target, dict) and id(target) not in known:
            refuse("invalid_json_schema", "Invalid schema for '{param}': '$ref' leads to no schema.", f"{place}.$ref")


def _check_grammar(grammar: str) -> None:
    if backward_grammar(grammar):
        refuse("invalid_value", "Invalid '{param}': something is repeated at least more often than at most.")
    # Parentheses in literals count too; no real grammar comes near the bound.
    if max(accumulate(_STEPS.get(letter, 0) for letter in grammar), default=0) > MOST_GRAMMAR_LEVELS:
        text = f"Invalid '{{param}}': nested too deeply. Expected at most {MOST_GRAMMAR_LEVELS} levels."
        refuse("invalid_value", text)
    check_grammar_cost(grammar)


JSON_SCHEMA = Object().refined(check_schema)
# Whether a grammar in GBNF parses is for the model server to find out.
GRAMMAR = Text(0, MOST_GRAMMAR_CHARACTERS).refined(_check_grammar).with_keywords(description="A grammar in GBNF.")
