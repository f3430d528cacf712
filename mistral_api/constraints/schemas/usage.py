"""Which definitions of a program are written once and for all, and which where they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mistral_api.constraints.schemas.values import Fields, Items, Program, Reference, Union, Value


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
    """Return the definitions that are used more than once, or that contain themselves, in the order of their use."""
    counts: Counter[int] = Counter()
    todo = [program.root.number]
    while todo:
        for number in references(program.definitions[todo.pop()]):
            counts[number] += 1
            if counts[number] == 1:
                todo.append(number)
    circular = _circular(program, counts)
    return [number for number in counts if (counts[number] > 1 or number in circular) and _is_large(program, number)]


def _is_large(program: Program, number: int) -> bool:
    """Whether a definition has something in it; others are written where they are used."""
    return isinstance(program.definitions[number], Union | Items | Fields)


def _circular(program: Program, used: Counter[int]) -> set[int]:
    """Return the definitions that are used inside themselves."""
    return {number for number in {*used, program.root.number} if _reaches(program, number)}


def _reaches(program: Program, number: int) -> bool:
    seen: set[int] = set()
    todo = list(references(program.definitions[number]))
    while todo:
        each = todo.pop()
        if each == number:
            return True
        if each not in seen:
            seen.add(each)
            todo += references(program.definitions[each])
    return False
