"""Grammars and JSON schemas within what llama.cpp survives.

JSON schemas that no value can satisfy: refused, because of what llama.cpp makes of them.

Seen on its server: a string of at least 5 and at most 2 characters becomes the grammar ``char{5,2}``, whose parser
never ends, and nobody is answered any more; an empty range of integers is a 500 for want of a next token; an array of
at least 3 and at most 1 items gets some other number of items.

What binds the form of an answer: grammars and JSON schemas, within what llama.cpp survives.

Its parsers call themselves for every level of a grammar and every ``$ref`` of a schema. Seen on its
server: 40 000 nested parentheses, or a chain of 50 000 references, overflow the stack and end the process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NoReturn

from mistral_api.wire.field_errors import quote_value, refuse
from mistral_api.wire.fields import CheckedField, check_object, check_text

# Keywords whose value maps names to schemas, and those whose value is data.
NAMED_SCHEMAS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
DATA = frozenset(("enum", "const", "default", "examples"))
_LENGTHS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
_ALTERNATIVES = ("enum", "anyOf", "oneOf", "allOf", "type")
_FARTHEST = 10**300  # of what a float holds
_REPETITION = re.compile(r"\{\s*0*(\d{1,9})\s*,\s*0*(\d{1,9})\s*\}")
# What is no syntax: escapes, classes, in grammars also strings and comments. What is not closed goes to the end,
# so that nothing is looked through twice.
_CLASS = r"\[(?:\\.|[^\]\\])*(?:\]|\\?\Z)|\\."
_IN_PATTERNS = re.compile(_CLASS, re.DOTALL)
_IN_GRAMMARS = re.compile(_CLASS + r'|"(?:\\.|[^"\\])*(?:"|\\?\Z)|#[^\n]*', re.DOTALL)


def refuse_contradictions(schema: dict[str, Any], path: str = "") -> None:
    """Refuse a JSON schema with a part that no value can satisfy; the refusal names the place."""
    for part, place in _parts(schema, path):
        for low, high in _LENGTHS:
            if _number(part, low, -math.inf) > _number(part, high, math.inf):
                _impossible(f"'{low}' is above '{high}'", place)
        _check_range(part, place)
        _check_alternatives(part, place)
        if isinstance(part.get("pattern"), str) and _backward(_IN_PATTERNS.sub("", part["pattern"])):
            _impossible("its 'pattern' repeats something at least more often than at most", place)


def backward_grammar(text: str) -> bool:
    """Whether a grammar in GBNF asks for ``{5,2}``: at least more than at most."""
    return _backward(_IN_GRAMMARS.sub("", text))


def _backward(syntax: str) -> bool:
    return any(int(low) > int(high) for low, high in _REPETITION.findall(syntax))


def _parts(schema: dict[str, Any], path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The schema and every schema inside it, each with its place; no recursion, as these may be deep."""
    open_parts: list[tuple[dict[str, Any], str]] = [(schema, path)]
    while open_parts:
        part, place = open_parts.pop()
        yield part, place
        for keyword, value in part.items():
            if keyword not in DATA:
                open_parts += _inside(keyword, value, f"{place}.{quote_value(keyword)}")


def _inside(keyword: str, value: Any, place: str) -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(value, list):
        yield from ((each, f"{place}[{index}]") for index, each in enumerate(value) if isinstance(each, dict))
    elif isinstance(value, dict) and keyword in NAMED_SCHEMAS:
        yield from ((each, f"{place}.{quote_value(name)}") for name, each in value.items() if isinstance(each, dict))
    elif isinstance(value, dict):
        yield value, place


def _number(part: dict[str, Any], keyword: str, absent: float) -> float:
    """A bound; ``absent``, which contradicts nothing, where there is none."""
    value = part.get(keyword)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return absent
    return float(min(max(value, -_FARTHEST), _FARTHEST))


def _check_range(part: dict[str, Any], place: str) -> None:
    """``minimum`` and ``maximum`` and their exclusive forms; of integers, whether one lies between them."""
    low, high = _number(part, "minimum", -math.inf), _number(part, "maximum", math.inf)
    above, below = _number(part, "exclusiveMinimum", -math.inf), _number(part, "exclusiveMaximum", math.inf)
    empty = low > high or above >= below or above >= high or low >= below
    if not empty and "integer" in (part.get("type"), *_listed(part.get("type"))):
        least = max(_whole(low, math.ceil), _whole(above, math.floor) + 1)
        most = min(_whole(high, math.floor), _whole(below, math.ceil) - 1)
        empty = least > most
    if empty:
        _impossible("no number is within its bounds", place)


def _listed(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else []


def _whole(bound: float, rounded: Any) -> float:
    return float(rounded(bound)) if math.isfinite(bound) else bound


def _check_alternatives(part: dict[str, Any], place: str) -> None:
    for keyword in _ALTERNATIVES:
        if part.get(keyword) == []:
            _impossible(f"'{keyword}' is empty", place)


def _impossible(why: str, place: str) -> NoReturn:
    refuse("invalid_json_schema", f"Invalid schema for '{{param}}': no value can satisfy it, because {why}.", place)


MOST_GRAMMAR_CHARACTERS = 65_536
MOST_GRAMMAR_LEVELS = 500
MOST_SCHEMA_VALUES = 10_000

_STEPS = {"(": 1, ")": -1}


def nested(value: Any) -> Iterator[list[Any]]:
    """The objects and arrays of a JSON value, level by level, the value itself first."""
    level = [value] if isinstance(value, dict | list) else []
    while level:
        yield level
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]


def check_schema(value: Any, path: str = "") -> None:
    """Refuse what is no object, a JSON schema of too many values, or one that no value can satisfy."""
    check_object(value, path)
    if sum(len(each) for level in nested(value) for each in level) > MOST_SCHEMA_VALUES:
        text = f"Invalid '{{param}}': schema too large. Expected at most {MOST_SCHEMA_VALUES} values."
        refuse("invalid_json_schema", text, path)
    refuse_contradictions(value, path)


class JsonSchema(CheckedField):
    """A JSON schema."""

    def check(self, value: Any) -> None:
        """Refuse what is no schema, or too large."""
        check_schema(value)


class Grammar(CheckedField):
    """A grammar in GBNF; whether it parses is the model server's to say."""

    def check(self, value: Any) -> None:
        """Refuse one that is too long or too deep, or never ends."""
        check_text(value, 0, MOST_GRAMMAR_CHARACTERS)
        if backward_grammar(value):
            refuse("invalid_value", "Invalid '{param}': something is repeated at least more often than at most.")
        # Parentheses in literals count too; no real grammar comes near the bound.
        if max(accumulate(_STEPS.get(letter, 0) for letter in value), default=0) > MOST_GRAMMAR_LEVELS:
            text = f"Invalid '{{param}}': nested too deeply. Expected at most {MOST_GRAMMAR_LEVELS} levels."
            refuse("invalid_value", text)
