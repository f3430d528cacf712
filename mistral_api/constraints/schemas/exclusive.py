"""Whether two sets of values have none in common: ``oneOf`` is a union only then."""

from __future__ import annotations

import json

from mistral_api.constraints.schemas.literals import identity, type_of
from mistral_api.constraints.schemas.values import (
    Fields,
    IntegerRange,
    Items,
    Literals,
    NumberRange,
    Property,
    Reference,
    Simple,
    Subset,
    Text,
    Union,
    Value,
)

_MOST_DEPTH = 8
_WIDE = {"integer": "number"}
_KINDS: dict[type, str] = {
    IntegerRange: "number",
    NumberRange: "number",
    Text: "string",
    Items: "array",
    Subset: "array",
    Fields: "object",
}
_ALL = frozenset(("null", "boolean", "number", "string", "array", "object"))


class Exclusivity:
    """Compares values of one compilation."""

    def __init__(self, definitions: dict[int, Value], inferred: set[int]) -> None:
        """``inferred``: the definitions whose schema names no type. Values of other types fit it as well."""
        self._definitions = definitions
        self._inferred = inferred

    def are_distinct_literals(self, values: list[Value]) -> bool:
        """Return whether all of these are lists of values, and no value is in two of them."""
        listed = [_loaded(found) for value in values if isinstance(found := self._resolved(value), Literals)]
        known = [identity(value) for each in listed for value in each]
        return len(listed) == len(values) and len(set(known)) == len(known)

    def excludes(self, one: Value, other: Value, depth: int = 0, *, loose: bool = False) -> bool:
        """Return whether two sets surely have no value in common; False also where that is not known.

        ``loose``: they are parts of a set whose schema names no type.
        """
        loose = loose or self._is_inferred(one) or self._is_inferred(other)
        one, other = self._resolved(one), self._resolved(other)
        if depth > _MOST_DEPTH:
            return False
        if isinstance(one, Union):
            return all(self.excludes(each, other, depth + 1, loose=loose) for each in one.choices)
        if isinstance(other, Union):
            return all(self.excludes(one, each, depth + 1, loose=loose) for each in other.choices)
        return self._excludes_plain(one, other, depth, loose=loose)

    def _is_inferred(self, value: Value) -> bool:
        for _ in range(_MOST_DEPTH):
            if not isinstance(value, Reference):
                return False
            if value.number in self._inferred or value.number not in self._definitions:
                return True
            value = self._definitions[value.number]
        return True

    def _excludes_plain(self, one: Value, other: Value, depth: int, *, loose: bool) -> bool:
        """Compare what are no references and no unions."""
        if isinstance(one, Literals) and isinstance(other, Literals):
            return set(map(identity, _loaded(one))).isdisjoint(map(identity, _loaded(other)))
        if not _types(one) & _types(other):
            return not loose
        if isinstance(one, Fields) and isinstance(other, Fields):
            return self._differs(one, other, depth) and self._differs(other, one, depth)
        return _ranges_exclude(one, other)

    def _resolved(self, value: Value) -> Value:
        for _ in range(_MOST_DEPTH):
            if not isinstance(value, Reference) or value.number not in self._definitions:
                break
            value = self._definitions[value.number]
        return value

    def _differs(self, one: Fields, other: Fields, depth: int) -> bool:
        """Whether no object that is generated for ``one`` fits ``other``."""
        names = {each.name: each for each in one.properties}
        missing = any(each.required and each.name not in names for each in other.properties)
        return (missing and one.extra is None) or any(
            self._forbids(other, each, depth) for each in one.properties if each.required
        )

    def _forbids(self, fields: Fields, given: Property, depth: int) -> bool:
        own = next((each for each in fields.properties if each.name == given.name), None)
        if own is None:
            return given.name in fields.forbidden or (fields.closed and fields.extra is None)
        return self.excludes(own.value, given.value, depth + 1)


def _types(value: Value) -> frozenset[str]:
    """Return the types of a value; integers are numbers here."""
    if isinstance(value, Literals):
        return frozenset(_WIDE.get(kind, kind) for kind in map(type_of, _loaded(value)))
    if isinstance(value, Simple) and value.kind != "any":
        return frozenset((_WIDE.get(value.kind, value.kind),))
    kind = _KINDS.get(type(value))
    return frozenset((kind,)) if kind else _ALL


def _loaded(value: Literals) -> list[object]:
    return [json.loads(text) for text in value.texts]


def _ranges_exclude(one: Value, other: Value) -> bool:
    if not isinstance(one, IntegerRange) or not isinstance(other, IntegerRange):
        return False
    return _is_below(one, other) or _is_below(other, one)


def _is_below(one: IntegerRange, other: IntegerRange) -> bool:
    return one.high is not None and other.low is not None and one.high < other.low
