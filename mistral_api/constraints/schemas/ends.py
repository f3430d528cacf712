"""Which values have an end: a schema whose every value contains another one can be generated for ever."""

from __future__ import annotations

from dataclasses import replace

from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.constraints.schemas.values import Fields, Items, Program, Reference, Union, Value

_NO_END = "every value of it would contain another one, without an end"


def pruned(program: Program) -> Program:
    """Return the program without values that have no end. Raises SchemaRefused where nothing remains."""
    finite = _finite(program.definitions)
    if program.root.number not in finite:
        raise SchemaRefused("", _NO_END)
    if len(finite) == len(program.definitions):
        return program
    definitions = {number: _prune(program.definitions[number], finite) for number in finite}
    return replace(program, definitions=definitions, faithful=False)


def _finite(definitions: dict[int, Value]) -> set[int]:
    """Return the definitions that have a value with an end."""
    finite: set[int] = set()
    while True:
        found = {number for number, value in definitions.items() if number not in finite and _ends(value, finite)}
        if not found:
            return finite
        finite |= found


def _ends(value: Value, finite: set[int]) -> bool:
    match value:
        case Reference(number=number):
            return number in finite
        case Union(choices=choices):
            return any(_ends(each, finite) for each in choices)
        case Items():
            needs_rest = value.low > len(value.prefix)
            parts = [*value.prefix, *([value.rest] if needs_rest and value.rest else [])]
            return all(_ends(each, finite) for each in parts)
        case Fields():
            needed = [each.value for each in value.properties if each.required]
            if value.low and value.extra is not None:
                needed.append(value.extra)
            return all(_ends(each, finite) for each in needed)
    return True


def _prune(value: Value, finite: set[int]) -> Value:
    match value:
        case Union(choices=choices):
            kept = tuple(_prune(each, finite) for each in choices if _ends(each, finite))
            return kept[0] if len(kept) == 1 else Union(kept)
        case Items():
            rest = value.rest if value.rest is None or _ends(value.rest, finite) else None
            high = value.high if rest is not None else len(value.prefix)
            return replace(value, rest=rest, high=high, prefix=tuple(_prune(each, finite) for each in value.prefix))
        case Fields():
            kept_properties = tuple(
                replace(each, value=_prune(each.value, finite))
                for each in value.properties
                if _ends(each.value, finite)
            )
            gone = tuple(each.name for each in value.properties if not _ends(each.value, finite))
            extra = value.extra if value.extra is None or _ends(value.extra, finite) else None
            return replace(value, properties=kept_properties, extra=extra, forbidden=(*value.forbidden, *gone))
    return value
