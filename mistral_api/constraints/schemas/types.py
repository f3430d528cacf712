"""The types that the parts of a schema allow."""

from __future__ import annotations

from mistral_api.constraints.schemas.context import Bases, Context
from mistral_api.constraints.schemas.literals import TYPES, lists_values
from mistral_api.payload_types import JsonObject

_WIDEST = [kind for kind in TYPES if kind != "integer"]
_KEYWORDS_OF_TYPES = {
    "object": ("properties", "additionalProperties", "patternProperties", "propertyNames", "required",
               "minProperties", "maxProperties", "unevaluatedProperties"),
    "array": ("items", "prefixItems", "contains", "uniqueItems", "minItems", "maxItems", "unevaluatedItems",
              "additionalItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}  # fmt: skip
_INFERRED_BY_ENGINE = ("properties", "additionalProperties", "items", "prefixItems")


def named_types(context: Context, bases: Bases) -> list[str] | None:
    """Return the types that all parts allow; None where none of them names a type."""
    named = [types for base in bases if (types := _named_by(context, base)) is not None]
    if not named:
        return None
    types = list(TYPES)
    for each in named:
        types = _common_types(types, each)
    order = [kind for kind in named[0] if kind in types]
    return order + [kind for kind in types if kind not in order]


def inferred_types(context: Context, bases: Bases) -> list[str]:
    """Return the types that the keywords of the parts are about, ``any`` where they are about none."""
    if any(map(lists_values, bases)):
        return list(TYPES)
    found = [
        kind
        for kind, keywords in _KEYWORDS_OF_TYPES.items()
        if any(keyword in base for base in bases for keyword in keywords)
    ]
    if found and not (len(found) == 1 and any(keyword in bases[0] for keyword in _INFERRED_BY_ENGINE)):
        context.changed()
    return found or ["any"]


def without_types(types: list[str], removed: set[str]) -> list[str]:
    """Return the types that remain without some."""
    if not removed:
        return types
    return [kind for kind in (_WIDEST if types == ["any"] else types) if kind not in removed]


def _named_by(context: Context, base: JsonObject) -> list[str] | None:
    if "type" not in base:
        return None
    given = base["type"] if isinstance(base["type"], list) else [base["type"]]
    known = [kind for kind in given if kind in TYPES]
    if len(known) < len(given) or not given:
        context.changed()
        context.give_up(base, "type", "it has to be one of JSON's types, or an array of these")
        return known or None
    return [kind for kind in known if not (kind == "integer" and "number" in known)]


def _common_types(one: list[str], other: list[str]) -> list[str]:
    """Return the types in both; an integer is a number."""
    wide = {kind for kind in one if kind in other}
    if "integer" in one and "number" in other:
        wide.add("integer")
    if "integer" in other and "number" in one:
        wide.add("integer")
    if "number" in wide:
        wide.discard("integer")
    return [kind for kind in TYPES if kind in wide]
