"""JSON schemas that no value can satisfy: refused, because of what llama.cpp makes of them.

Seen on its server: a string of at least 5 and at most 2 characters becomes the grammar ``char{5,2}``, whose parser
never ends, and nobody is answered any more; an empty range of integers is a 500 for want of a next token; an array of
at least 3 and at most 1 items gets some other number of items.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from mistral_api.schemas.issues import quote_value, refuse

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
