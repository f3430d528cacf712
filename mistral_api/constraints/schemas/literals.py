"""Values that a schema lists: those of ``enum`` and ``const`` that also fit what stands beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mistral_api.constraints.schemas.context import Bases, Context, holder
from mistral_api.constraints.schemas.errors import Impossible
from mistral_api.constraints.schemas.matches import matches
from mistral_api.constraints.schemas.ranges import is_multiple, is_number, multiple_of, number_bounds
from mistral_api.constraints.schemas.strings import has_pattern, pattern_of_format
from mistral_api.constraints.schemas.values import Literals
from mistral_api.payload_types import JsonObject

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_INNER = (
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
    "maxProperties", "items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems", "unevaluatedItems",
    "unevaluatedProperties",
)  # fmt: skip
_INT64 = 2**63


def type_of(value: Any) -> str:
    """Return the type of a JSON value; ``integer`` also for 1.0, as JSON Schema counts."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    kinds: dict[type, str] = {float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def identity(value: Any) -> Hashable:
    """Return what is equal for values that JSON Schema takes for the same: 1 and 1.0 are, 1 and true are not."""
    match value:
        case bool() | None:
            return (str(value),)
        case list():
            return ("array", tuple(map(identity, value)))
        case dict():
            return ("object", frozenset((name, identity(each)) for name, each in value.items()))
        case str():
            return ("string", value)
    return ("number", value)


def lists_values(base: JsonObject) -> bool:
    """Whether a part lists its values."""
    return "const" in base or isinstance(base.get("enum"), list)


def literals(context: Context, bases: Bases, types: list[str]) -> Literals:
    """Return the listed values that fit all of the parts. Raises Impossible where none does."""
    listed = [base["enum"] for base in bases if isinstance(base.get("enum"), list)]
    listed += [[base["const"]] for base in bases if "const" in base]
    _refuse_inner(context, bases, listed[0])
    checks = _checks(context, bases, types, listed[1:])
    fitting = [value for value in listed[0] if all(check(value) for check in checks)]
    if len(fitting) < len(listed[0]) or len(listed) > 1:
        context.changed()
    if not fitting:
        part = holder(bases, "enum", "const")
        keyword = "enum" if "enum" in part else "const"
        raise Impossible(context.parts.place(part, keyword), "none of its values fits what stands beside it")
    return Literals(tuple(dict.fromkeys(_text(context, bases, value) for value in fitting)))


def _text(context: Context, bases: Bases, value: Any) -> str:
    if isinstance(value, int) and not -_INT64 <= value < 2 * _INT64:
        part = holder(bases, "enum", "const")
        reason = "llama.cpp cannot hold an integer of this size"
        context.may_use_grammar(part, "enum" if "enum" in part else "const", reason)
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        part = holder(bases, "enum", "const")
        raise Impossible(context.parts.place(part), "a value of it is no JSON") from error


def _refuse_inner(context: Context, bases: Bases, values: list[Any]) -> None:
    """What arrays and objects contain is not compared with the keywords beside a list."""
    if any(isinstance(value, list | dict) for value in values):
        for base in bases:
            for keyword in _INNER:
                if keyword in base:
                    context.give_up(base, keyword, "it is not supported beside a list of arrays or objects")


def _checks(context: Context, bases: Bases, types: list[str], others: list[list[Any]]) -> list[Callable[[Any], bool]]:
    """Return what tells whether a value fits the types, the other lists, and the keywords beside them."""
    known = [set(map(identity, each)) for each in others]

    def type_fits(value: Any) -> bool:
        kind = type_of(value)
        return kind in types or (kind == "integer" and "number" in types)

    def listed_too(value: Any) -> bool:
        return all(identity(value) in each for each in known)

    return [type_fits, listed_too, _number_check(context, bases), _text_check(context, bases)]


def _number_check(context: Context, bases: Bases) -> Callable[[Any], bool]:
    low, high = number_bounds(context, bases)
    steps = [step for base in bases if (step := multiple_of(context, base)) is not None]

    def fits(value: Any) -> bool:
        if not is_number(value):
            return True
        above = low is None or (value > low.value if low.exclusive else value >= low.value)
        below = high is None or (value < high.value if high.exclusive else value <= high.value)
        return above and below and all(is_multiple(Fraction(Decimal(repr(value))), step) for step in steps)

    return fits


def _text_check(context: Context, bases: Bases) -> Callable[[Any], bool]:
    least, most = context.counts(bases, "minLength", "maxLength")
    patterns = [each for base in bases for each in _patterns(context, base)]

    def fits(value: Any) -> bool:
        if not isinstance(value, str):
            return True
        in_bounds = least <= len(value) and (most is None or len(value) <= most)
        return in_bounds and all(
            matches(context, part, keyword, pattern, value) is not False for part, keyword, pattern in patterns
        )

    return fits


def _patterns(context: Context, base: JsonObject) -> Iterator[tuple[JsonObject, str, str]]:
    """Yield the patterns that a part names, each with the part and its keyword."""
    if has_pattern(context, base):
        yield base, "pattern", base["pattern"]
    format_pattern = pattern_of_format(base)
    if format_pattern is not None and not context.strictness.lenient:
        yield base, "format", format_pattern
