"""Random JSON values for the schemas of ``mistral_api.wire.json_schema``: mostly allowed, some at or beyond a limit.

Only the keywords used there are supported. A validator decides whether a value is allowed.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from mistral_api.wire.shapes import JsonSchema

_LETTERS = "abz09_-.: é\0"
_ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, 2**31, "", "x", "auto", "text", "function", "\0", "x" * 65, "x" * 600, "é_1-",
    [], [None], ["x"], [1], [[]], {}, {"type": "text", "text": "x"}, {"x": None},
]  # fmt: skip
# An example for each string pattern of the schemas; a new pattern needs a new example here.
_PATTERN_EXAMPLES = {
    "[A-Za-z0-9._:-]+": "first-steps",
    "[A-Za-z0-9_-]{1,64}": "get_weather",
    "resp_[A-Za-z0-9_-]{1,128}": "resp_1",
    "[0-9]{1,9}": "17",
    "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}": "saved.bin",
}


def random_value(schema: JsonSchema, chance: random.Random) -> Any:
    """Return a random value for a schema, most likely an allowed one."""
    if "anyOf" in schema:
        return random_value(chance.choice(schema["anyOf"]), chance)
    if "const" in schema or "enum" in schema:
        return copy.deepcopy(chance.choice(schema.get("enum", [schema.get("const")])))
    kind = schema.get("type")
    kind = chance.choice(kind) if isinstance(kind, list) else kind
    made = _MAKERS.get(str(kind))
    return copy.deepcopy(chance.choice(_ODD_VALUES)) if made is None else made(schema, chance)


def _text(schema: JsonSchema, chance: random.Random) -> str:
    form = str(schema.get("pattern", "")).removeprefix("^(?:").removeprefix("^").removesuffix("$").removesuffix(")")
    if form in _PATTERN_EXAMPLES:
        return _PATTERN_EXAMPLES[form]
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
    first = [random_value(each, chance) for each in schema.get("prefixItems", [])]
    low = schema.get("minItems", 0)
    high = schema.get("maxItems", low + 3)
    length = chance.choice([low, low + 1, *([high, high + 1] if high < 100 else [low + 3])])
    return first + [random_value(schema.get("items", {}), chance) for _ in range(length - len(first))]


def _object(schema: JsonSchema, chance: random.Random) -> dict[str, Any]:
    named = schema.get("properties", {})
    wanted = [name for name in named if name in schema.get("required", ()) or chance.random() < 0.4]
    made = {name: random_value(named[name], chance) for name in wanted}
    more = schema.get("additionalProperties", {})
    for _ in range(chance.choice([0, 0, 1, 2, min(17, 1 + schema.get("maxProperties", 2))])):
        name = random_value({"type": "string"} | schema.get("propertyNames", {"minLength": 1}), chance)
        made.setdefault(name, random_value(more if isinstance(more, dict) else {}, chance))
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


def mutate(value: Any, chance: random.Random) -> Any:
    """Return a copy in which one random part is replaced or removed."""
    box = [copy.deepcopy(value)]
    parent, key = chance.choice(list(_locations(box)))
    if parent is not box and chance.random() < 0.5:
        del parent[key]
    else:
        parent[key] = copy.deepcopy(chance.choice(_ODD_VALUES))
    return box[0]


def _locations(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _locations(value[key])
