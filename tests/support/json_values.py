"""JSON values for the JSON schemas of ``mistral_api.wire.shapes``: mostly allowed ones, some at or beyond their bounds.

No more keywords are known than are used there. Nobody relies on a value being allowed: a validator says whether it is.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from mistral_api.wire.shapes import JsonSchema

_LETTERS = "abz09_-.: é\0"
_OTHERS: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, 2**31, "", "x", "auto", "text", "function", "\0", "x" * 65, "x" * 600, "é_1-",
    [], [None], ["x"], [1], [[]], {}, {"type": "text", "text": "x"}, {"x": None},
]  # fmt: skip
# Texts for the forms that strings must have; one that is described anew needs a text of its own here.
_IN_FORM = {
    "[A-Za-z0-9._:-]+": "first-steps",
    "[A-Za-z0-9_-]{1,64}": "get_weather",
    "resp_[A-Za-z0-9_-]{1,128}": "resp_1",
    "[0-9]{1,9}": "17",
    "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}": "saved.bin",
}


def value_of(schema: JsonSchema, chance: random.Random) -> Any:
    """Return a value, most likely an allowed one."""
    if "anyOf" in schema:
        return value_of(chance.choice(schema["anyOf"]), chance)
    if "const" in schema or "enum" in schema:
        return copy.deepcopy(chance.choice(schema.get("enum", [schema.get("const")])))
    kind = schema.get("type")
    kind = chance.choice(kind) if isinstance(kind, list) else kind
    made = _MAKERS.get(str(kind))
    return copy.deepcopy(chance.choice(_OTHERS)) if made is None else made(schema, chance)


def _text(schema: JsonSchema, chance: random.Random) -> str:
    form = str(schema.get("pattern", "")).removeprefix("^(?:").removeprefix("^").removesuffix("$").removesuffix(")")
    if form in _IN_FORM:
        return _IN_FORM[form]
    if schema.get("format") == "uuid":
        return "0199f0a2-7c3e-7abc-8def-0123456789ab"
    low, high = schema.get("minLength", 0), schema.get("maxLength", 9)
    length = chance.choice([low, low + 1, *([high, high + 1] if high < 1000 else [])])
    return "".join(chance.choice(_LETTERS) for _ in range(length))


def _number(schema: JsonSchema, chance: random.Random) -> float:
    low, high = schema.get("minimum", -1000), schema.get("maximum", 10**6)
    inside = chance.randint(int(low), int(high))
    found: float = chance.choice([low, high, inside, inside, low - 1, high + 1])
    return found + 0.5 if schema["type"] == "number" and chance.random() < 0.3 else found


def _array(schema: JsonSchema, chance: random.Random) -> list[Any]:
    first = [value_of(each, chance) for each in schema.get("prefixItems", [])]
    low = schema.get("minItems", 0)
    high = schema.get("maxItems", low + 3)
    length = chance.choice([low, low + 1, *([high, high + 1] if high < 100 else [low + 3])])
    return first + [value_of(schema.get("items", {}), chance) for _ in range(length - len(first))]


def _object(schema: JsonSchema, chance: random.Random) -> dict[str, Any]:
    named = schema.get("properties", {})
    wanted = [name for name in named if name in schema.get("required", ()) or chance.random() < 0.4]
    made = {name: value_of(named[name], chance) for name in wanted}
    more = schema.get("additionalProperties", {})
    for _ in range(chance.choice([0, 0, 1, 2, min(17, 1 + schema.get("maxProperties", 2))])):
        name = value_of({"type": "string"} | schema.get("propertyNames", {"minLength": 1}), chance)
        made.setdefault(name, value_of(more if isinstance(more, dict) else {}, chance))
    return made


_MAKERS = {
    "null": lambda _shape, _chance: None,
    "boolean": lambda _shape, chance: chance.random() < 0.5,
    "string": _text,
    "integer": _number,
    "number": _number,
    "array": _array,
    "object": _object,
}


def mutated(value: Any, chance: random.Random) -> Any:
    """Return the value with something in it replaced or taken away, or another value in its place."""
    box = [copy.deepcopy(value)]
    parent, key = chance.choice(list(_places(box)))
    if parent is not box and chance.random() < 0.5:
        del parent[key]
    else:
        parent[key] = copy.deepcopy(chance.choice(_OTHERS))
    return box[0]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
