"""``not``, where it excludes types, listed values, or a property."""

from __future__ import annotations

from typing import Any

from mistral_api.constraints.schemas.context import Context
from mistral_api.constraints.schemas.errors import Impossible
from mistral_api.constraints.schemas.literals import TYPES, identity
from mistral_api.payload_types import JsonObject, omit

_NOT = "'not' is supported with a type, with values beside a list of values, and with a property that is not allowed"
_DESCRIBING = ("title", "description", "$comment")


def without_negated(context: Context, bases: list[JsonObject]) -> tuple[list[JsonObject], set[str]]:
    """Return the parts without what their ``not`` excludes, and the types that are excluded.

    Raises Impossible where all is excluded.
    """
    removed: set[str] = set()
    found = [omit(base, ("not",)) if "not" in base else base for base in bases]
    found = [new if new is base else context.parts.derive(base, new) for base, new in zip(bases, found, strict=True)]
    for base in bases:
        for negated in _alternatives(base):
            context.deadline.check()
            context.changed()
            found = _exclude(context, base, negated, found, removed)
    return found, removed


def _alternatives(base: JsonObject) -> list[Any]:
    """Return what a part excludes: not any of several is none of them."""
    if "not" not in base:
        return []
    negated = base["not"]
    if isinstance(negated, dict):
        negated = omit(negated, _DESCRIBING)
        if set(negated) == {"anyOf"} and isinstance(negated["anyOf"], list):
            return list(negated["anyOf"])
    return [negated]


def _exclude(
    context: Context, base: JsonObject, negated: Any, bases: list[JsonObject], removed: set[str]
) -> list[JsonObject]:
    if negated is False:
        return bases
    if negated is True or negated == {}:
        raise Impossible(context.parts.place(base, "not"), "its 'not' excludes all values")
    keywords = set(negated) if isinstance(negated, dict) else set()
    if keywords == {"type"}:
        types = negated["type"] if isinstance(negated["type"], list) else [negated["type"]]
        if all(each in TYPES for each in types) and ("integer" not in types or "number" in types):
            removed |= set(types) | ({"integer"} if "number" in types else set())
            return bases
    if keywords in ({"const"}, {"enum"}):
        values = [negated["const"]] if "const" in keywords else negated["enum"]
        shortened = _without_values(context, bases, values if isinstance(values, list) else [])
        if shortened is not None:
            return shortened
    if keywords == {"required"} and isinstance(negated["required"], list) and len(negated["required"]) == 1:
        forbidden = {"type": "object", "properties": {str(negated["required"][0]): False}}
        return [*bases, context.parts.derive(base, forbidden)]
    context.give_up(base, "not", _NOT)
    return bases


def _without_values(context: Context, bases: list[JsonObject], values: list[Any]) -> list[JsonObject] | None:
    """Return the parts with a list of values without these; None where no part lists its values."""
    excluded = set(map(identity, values))
    for index, base in enumerate(bases):
        listed = base.get("enum") if isinstance(base.get("enum"), list) else None
        if listed is None and "const" in base:
            listed = [base["const"]]
        if listed is None and base.get("type") == "boolean":
            listed = [True, False]
        if listed is not None:
            kept = [value for value in listed if identity(value) not in excluded]
            if not kept:
                raise Impossible(context.parts.place(base, "enum"), "its 'not' excludes all values")
            return [
                *bases[:index],
                context.parts.derive(base, omit(base, ("const",)) | {"enum": kept}),
                *bases[index + 1 :],
            ]
    return None
