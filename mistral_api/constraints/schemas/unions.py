"""``anyOf``, ``oneOf`` and conditions: alternatives of which a value must fit one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from mistral_api.constraints.schemas.conditions import conditions
from mistral_api.constraints.schemas.context import Compiler, Context
from mistral_api.constraints.schemas.errors import Impossible
from mistral_api.constraints.schemas.exclusive import Exclusivity
from mistral_api.constraints.schemas.values import Literals, Reference, Value, union_of
from mistral_api.payload_types import JsonObject

UNIONS = ("anyOf", "oneOf")
# The most alternatives of which each is compared with each.
_MOST_COMPARED = 150
_MOST_COMBINATIONS = 200
_NOT_EXCLUSIVE = (
    "its alternatives may have values in common; 'oneOf' is enforced where they differ in their type, or in the "
    "constant value of a required property: use 'anyOf' instead"
)


@dataclass(slots=True)
class Choice:
    """Alternatives, of which a value must fit one."""

    part: JsonObject
    keyword: str
    alternatives: list[list[JsonObject | bool]]


@dataclass(slots=True)
class Flat:
    """A goal without references: parts that hold together, and choices."""

    bases: list[JsonObject] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)


def choices_of(context: Context, part: JsonObject, *, alone: bool) -> list[Choice]:
    """Return the choices that a part names. ``alone``: it says nothing else."""
    found = [
        Choice(part, keyword, [[each] for each in context.list_of(part, keyword)])
        for keyword in UNIONS
        if keyword in part
    ]
    found = [choice for choice in found if choice.alternatives]
    found += [Choice(part, keyword, each) for keyword, each in conditions(context, part)]
    if len(found) > 1 or (found and not alone):
        context.changed()
    return found


def union(compiler: Compiler, flat: Flat) -> Value:
    """Return the values that fit an alternative of each choice. Raises Impossible where there are none."""
    for choice in flat.choices:
        if choice.keyword == "oneOf":
            _require_exclusive(compiler, flat.bases, choice)
    choices = _combinable(compiler.context, flat.choices)
    combinations = itertools.product(*(choice.alternatives for choice in choices))
    return _union_of(compiler, [[*flat.bases, *itertools.chain(*each)] for each in combinations])


def _combinable(context: Context, choices: list[Choice]) -> list[Choice]:
    """Return the choices without the last ones where too many alternatives would be combined."""
    kept, count = list[Choice](), 1
    for choice in choices:
        count *= len(choice.alternatives)
        if kept and count > _MOST_COMBINATIONS:
            context.give_up(choice.part, choice.keyword, "too many alternatives are combined")
            break
        kept.append(choice)
    return kept


def _union_of(compiler: Compiler, goals: list[list[JsonObject | bool]]) -> Value:
    found: list[Value] = []
    failures: list[Impossible] = []
    for goal in goals:
        try:
            found.append(compiler.compile(goal))
        except Impossible as impossible:
            compiler.context.changed()
            failures.append(impossible)
    if not found:
        raise failures[0]
    return union_of([_inlined(compiler.context, each) for each in found])


def _inlined(context: Context, value: Value) -> Value:
    """Return lists of values as such, so that unions of them are one list."""
    found = context.definitions.get(value.number) if isinstance(value, Reference) else None
    if isinstance(value, Reference) and isinstance(found, Literals) and value.number not in context.notes:
        return found
    return value


def _require_exclusive(compiler: Compiler, bases: list[JsonObject], choice: Choice) -> None:
    context, values = compiler.context, []
    for alternative in choice.alternatives:
        try:
            values.append(compiler.compile([*bases, *alternative]))
        except Impossible:
            continue
    compare = Exclusivity(context.definitions, context.inferred)
    if compare.are_distinct_literals(values):
        return
    if len(values) > _MOST_COMPARED or not _exclude_each_other(context, compare, values):
        context.give_up(choice.part, choice.keyword, _NOT_EXCLUSIVE)


def _exclude_each_other(context: Context, compare: Exclusivity, values: list[Value]) -> bool:
    for one, other in itertools.combinations(values, 2):
        context.deadline.check()
        if not compare.excludes(one, other):
            return False
    return True
