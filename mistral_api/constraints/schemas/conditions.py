"""Conditions of a schema as alternatives: ``if``, ``dependentRequired``, ``dependentSchemas``, ``dependencies``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mistral_api.constraints.schemas.context import Context
from mistral_api.payload_types import JsonObject

Alternative = list[JsonObject | bool]
CONDITIONS = ("if", "dependentRequired", "dependentSchemas", "dependencies")
_IF = "'if' is supported where it compares one property with values"


def conditions(context: Context, part: JsonObject) -> Iterator[tuple[str, list[Alternative]]]:
    """Yield the alternatives that each condition of a part leaves, with its keyword."""
    if "if" in part and ("then" in part or "else" in part):
        context.changed()
        found = _if(context, part)
        if found is not None:
            yield "if", found
    for keyword in CONDITIONS[1:]:
        for name, needed in context.object_of(part, keyword).items():
            context.changed()
            yield keyword, [_derived(context, part, [_without(name)]), _with(context, part, name, needed)]


def _derived(context: Context, part: JsonObject, made: list[JsonObject]) -> Alternative:
    return [context.parts.derive(part, each) for each in made]


def _without(name: str) -> JsonObject:
    return {"type": "object", "properties": {name: False}}


def _with(context: Context, part: JsonObject, name: str, needed: Any) -> Alternative:
    """Return what an object with a property must fit: it has others, or fits a schema."""
    if isinstance(needed, list):
        return _derived(context, part, [{"type": "object", "required": [name, *needed]}])
    return [*_derived(context, part, [{"type": "object", "required": [name]}]), needed]


def _if(context: Context, part: JsonObject) -> list[Alternative] | None:
    condition = part["if"]
    compared = _compared(condition)
    if compared is None:
        context.give_up(part, "if", _IF)
        return None
    name, values = compared
    present = {"required": [name]}
    matched = {"type": "object", "properties": {name: {"enum": values}}}
    other = {"type": "object", "properties": {name: {"not": {"enum": values}}}}
    if name not in condition.get("required", []):
        other |= present  # an object without the property fits the condition
    then, otherwise = part.get("then", True), part.get("else", True)
    return [
        [*_derived(context, part, [matched | _required(condition)]), then],
        [*_derived(context, part, [other]), otherwise],
    ]


def _required(condition: JsonObject) -> JsonObject:
    return {"required": condition["required"]} if "required" in condition else {}


def _compared(condition: Any) -> tuple[str, list[Any]] | None:
    """Return the property that a condition compares, and the values that it is compared with."""
    if not isinstance(condition, dict) or set(condition) - {"properties", "required", "type"}:
        return None
    properties, required = condition.get("properties"), condition.get("required", [])
    if not isinstance(properties, dict) or len(properties) != 1 or not isinstance(required, list):
        return None
    if not all(each in list(properties) for each in required):
        return None
    ((name, rule),) = properties.items()
    if not isinstance(rule, dict) or set(rule) - {"const", "enum", "type"}:
        return None
    values = [rule["const"]] if "const" in rule else rule.get("enum")
    return (name, values) if isinstance(values, list) and values else None
