"""Random JSON schemas of the kind that is enforced, and what a random model is to write so that it comes to an end."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jsonschema

# Any token may come, and those that end strings, arrays and objects come soon.
WILD_SAMPLING: dict[str, Any] = {
    "temperature": 2,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "logit_bias": [['"', 9], ["}", 9], ["]", 9], [",", 5], ["\\", 5]],
}
_NAMES = ("a", "b", "c", "name", "x-y", "ü", "with space", "1", 'q"', "a/b")
_VALUES: tuple[Any, ...] = ("a", "b\n", '"q"', 1, 2.5, None, True, "é", [1], {"k": 1}, "lång 😀", "\\back")
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "hostname", "uri", "duration")
_PATTERNS = (
    r"^\d{2,4}$",
    "^[A-Z][a-z]{0,9}$",
    "^a.c$",
    "^[^x]{1,3}$",
    r"^\w{1,5}@\w{1,5}$",
    "^(ab|cd){1,4}$",
    r"^\S{1,4}$",
    "^(?!foo)[a-z]{1,6}$",
)
_DEFINITIONS: dict[str, Any] = {
    "T": {"type": "object", "properties": {"t": {"type": "boolean"}}, "required": ["t"]},
    "a/b": {"type": "string", "pattern": "^[a-z]{1,3}$"},
    "tree": {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 0, "maximum": 9},
            "l": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1},
        },
        "required": ["n"],
    },
}
_MOST_DEPTH = 3


class SchemaMaker:
    """Makes random schemas. ``chance`` decides all of them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._leaves: list[Callable[[], dict[str, Any]]] = [
            self._string,
            self._integer,
            self._number,
            lambda: {"type": chance.choice(["boolean", "null"])},
            lambda: {"enum": chance.sample(_VALUES, chance.randint(1, 4))},
            lambda: {"const": chance.choice(_VALUES)},
            self._listed,
            lambda: {"type": "string", "format": chance.choice(_FORMATS)},
            lambda: {"type": "string", "pattern": chance.choice(_PATTERNS)},
            lambda: {"type": chance.sample(["string", "integer", "null", "boolean"], 2), "minLength": 1},
            lambda: {"$ref": chance.choice(["#/$defs/T", "#/$defs/a~1b", "#/%24defs/tree"])},
        ]

    def object_schema(self, levels: int = _MOST_DEPTH) -> dict[str, Any]:
        """Return the schema of an object with so many levels in it, and definitions that it may refer to."""
        return self._object(_MOST_DEPTH - levels) | {"$defs": _DEFINITIONS}

    def _schema(self, depth: int) -> dict[str, Any]:
        if depth >= _MOST_DEPTH or self._chance.random() < 0.5:
            return self._chance.choice(self._leaves)()
        kinds = (
            self._object,
            self._object,
            self._array,
            self._tuple,
            self._union,
            self._tagged,
            self._joined,
            self._map,
        )
        return self._chance.choice(kinds)(depth)

    def _maybe(self, likelihood: float, **keywords: Any) -> dict[str, Any]:
        return keywords if self._chance.random() < likelihood else {}

    def _string(self) -> dict[str, Any]:
        low = self._chance.randint(0, 4)
        return {"type": "string"} | self._maybe(0.5, minLength=low) | self._maybe(0.7, maxLength=low + 5)

    def _listed(self) -> dict[str, Any]:
        """Return a list of values with keywords beside it, which one of them fits at least."""
        beside: list[dict[str, Any]] = [
            {"multipleOf": 0.5, "minimum": 1},
            {"format": "ipv4", "type": ["string", "number"]},
            {"pattern": r"^\D{1,3}$", "maxLength": 3},
            {"minLength": 2, "type": ["string", "null"]},
        ]
        values = [*self._chance.sample(_VALUES, 4), None, 2.5, "1.2.3.4", "ab"]
        return {"enum": values} | self._chance.choice(beside)

    def _integer(self) -> dict[str, Any]:
        low = self._chance.choice([0, 1, -5, -123, 7, 1000, 0.5])
        least = {self._chance.choice(["minimum", "exclusiveMinimum"]): low}
        most = {self._chance.choice(["maximum", "exclusiveMaximum"]): low + self._chance.randint(2, 200)}
        return {"type": "integer"} | self._maybe(0.7, **least) | self._maybe(0.7, **most)

    def _number(self) -> dict[str, Any]:
        low = self._chance.choice([0, 0.5, -1, -90.5, 0.1, 100])
        least = {self._chance.choice(["minimum", "exclusiveMinimum"]): low}
        most = {self._chance.choice(["maximum", "exclusiveMaximum"]): low + self._chance.choice([0.25, 1, 7.5, 1000])}
        return {"type": "number"} | self._maybe(0.4, **least, **most)

    def _object(self, depth: int) -> dict[str, Any]:
        names = self._chance.sample(_NAMES, self._chance.randint(1, 4))
        found: dict[str, Any] = {"type": "object", "properties": {name: self._schema(depth + 1) for name in names}}
        found["required"] = [name for name in names if self._chance.random() < 0.6]
        others = self._chance.choice([False, False, True, {"type": "integer"}])
        return found | self._maybe(0.5, additionalProperties=others) | self._maybe(0.1, minProperties=1)

    def _array(self, depth: int) -> dict[str, Any]:
        if self._chance.random() < 0.2:
            listed = {"enum": self._chance.sample(_VALUES, 4)}
            return {"type": "array", "items": listed, "uniqueItems": True, "minItems": self._chance.randint(0, 3)}
        found = {"type": "array", "items": self._schema(depth + 1), "maxItems": self._chance.randint(2, 4)}
        return found | self._maybe(0.5, minItems=self._chance.randint(0, 2))

    def _tuple(self, depth: int) -> dict[str, Any]:
        first = [self._schema(depth + 1) for _ in range(self._chance.randint(1, 3))]
        rest = self._chance.choice([False, True, {"type": "integer"}])
        return {"type": "array", "prefixItems": first, "maxItems": 4} | self._maybe(0.5, items=rest)

    def _union(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self._schema(depth + 1) for _ in range(self._chance.randint(1, 3))]}

    def _tagged(self, depth: int) -> dict[str, Any]:
        kinds = range(self._chance.randint(1, 3))
        return {"oneOf": [self._with_tag(kind, depth) for kind in kinds]}

    def _with_tag(self, kind: int, depth: int) -> dict[str, Any]:
        properties = {"kind": {"const": kind}, "v": self._schema(depth + 1)}
        return {"type": "object", "properties": properties, "required": ["kind"]}

    def _joined(self, depth: int) -> dict[str, Any]:
        one = {"type": "object", "properties": {"p": self._schema(depth + 1)}, "required": ["p"]}
        return {"allOf": [one, {"properties": {"q": self._schema(depth + 1)}}]}

    def _map(self, depth: int) -> dict[str, Any]:
        values = self._schema(depth + 1)
        names = self._chance.choice([{"enum": ["k1", "k2"]}, {"pattern": "^[a-c]{1,3}$"}])
        if self._chance.random() < 0.3:
            return {"type": "object", "patternProperties": {"^k[0-9]$": values}, "additionalProperties": False}
        return {"type": "object", "additionalProperties": values} | self._maybe(0.5, propertyNames=names)


def violations(schema: dict[str, Any], value: Any) -> list[str]:
    """Return in what a value is not valid by a schema, formats included."""
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
    return [error.message for error in validator.iter_errors(value)]
