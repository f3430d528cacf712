"""Which definitions of a program are written once and for all, and which where they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mistral_api.constraints.schemas.values import Fields, Items, Literals, Program, Reference, Union, Value

_FEW_TEXTS = 20


def inner_values(value: Value) -> Iterator[Value]:
    """Yield the values that a value is made of."""
    match value:
        case Union(choices=choices):
            yield from choices
        case Items():
            yield from value.prefix
            if value.rest is not None:
                yield value.rest
        case Fields():
            yield from (each.value for each in value.properties)
            if value.extra is not None:
                yield value.extra


def references(value: Value) -> Iterator[int]:
    """Yield the definitions that a value refers to, each as often as it does."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, Reference):
            yield each.number
        else:
            todo += inner_values(each)


def resolved(program: Program, value: Value) -> Value:
    """Return a value that is no reference, by following references."""
    while isinstance(value, Reference):
        value = program.definitions[value.number]
    return value


def shared_definitions(program: Program) -> list[int]:
    """Return the definitions that are used more than once, or that contain themselves, in the order of their use.

    What contains itself is the root, or is used from outside as well.
    """
    counts: Counter[int] = Counter()
    todo = [program.root.number]
    while todo:
        for number in references(program.definitions[todo.pop()]):
            counts[number] += 1
            if counts[number] == 1 and number != program.root.number:
                todo.append(number)
    repeated = [number for number, count in counts.items() if count > 1 or number == program.root.number]
    return [number for number in repeated if _is_large(program, number)]


def _is_large(program: Program, number: int) -> bool:
    """Whether a definition has something in it, or a long list; others are written where they are used."""
    value = program.definitions[number]
    if isinstance(value, Literals):
        return len(value.texts) > _FEW_TEXTS
    return isinstance(value, Union | Items | Fields)
