"""Expressions: what regular expressions, and the rules of grammars, are read into and written from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from mistral_api.grammars.characters import ALL, CharacterSet, from_ranges, of


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of a set."""

    allowed: CharacterSet


@dataclass(frozen=True, slots=True)
class Sequence:
    """Parts that follow each other. Without any it is the empty text."""

    parts: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several options. Without any it matches nothing at all."""

    options: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part again and again, ``most`` times at most (None: without end)."""

    part: Expression
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class RuleReference:
    """A rule of a grammar."""

    name: str


@dataclass(frozen=True, slots=True)
class Start:
    """The place before the first character."""


@dataclass(frozen=True, slots=True)
class End:
    """The place after the last character."""


@dataclass(frozen=True, slots=True)
class Look:
    """A place which something that matches follows (``ahead``) or ends at; or, ``negative``, nothing that matches."""

    part: Expression
    ahead: bool
    negative: bool


Expression: TypeAlias = Characters | Sequence | Choice | Repeat | RuleReference | Start | End | Look

EMPTY = Sequence()
NOTHING = Choice()
ANY_TEXT = Repeat(Characters(ALL))


def literal(text: str) -> Expression:
    """Return what matches a text only."""
    return sequence(Characters(of(letter)) for letter in text)


def characters(allowed: CharacterSet) -> Expression:
    """Return what matches one character of a set; nothing where that is empty."""
    return Characters(allowed) if allowed else NOTHING


def sequence(parts: Iterable[Expression]) -> Expression:
    """Return the parts after each other, sequences among them made flat, and what repeats one part made one."""
    flat: list[Expression] = []
    for part in parts:
        for each in part.parts if isinstance(part, Sequence) else (part,):
            joined = _joined(flat[-1], each) if flat else None
            if joined is not None:
                flat[-1] = joined
            else:
                flat.append(each)
    if NOTHING in flat:
        return NOTHING
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def _joined(one: Expression, other: Expression) -> Expression | None:
    """Return two parts as one where they repeat the same, but for single characters: those are text."""
    first, second = _as_repeat(one), _as_repeat(other)
    if first.part != second.part or isinstance(first.part, Start | End | Look):
        return None
    if one == other and not isinstance(one, Repeat) and not (isinstance(one, Characters) and one.allowed.is_wide()):
        return None
    most = None if first.most is None or second.most is None else first.most + second.most
    return Repeat(first.part, first.least + second.least, most)


def _as_repeat(expression: Expression) -> Repeat:
    return expression if isinstance(expression, Repeat) else Repeat(expression, 1, 1)


def choice(options: Iterable[Expression]) -> Expression:
    """Return a choice of different options, with all its single characters as one set, and an empty one as ``?``."""
    flat: dict[Expression, None] = {}
    for option in options:
        flat.update(dict.fromkeys(option.options if isinstance(option, Choice) else (option,)))
    optional = EMPTY in flat
    found = _with_characters_joined([each for each in flat if each != EMPTY])
    inner = found[0] if len(found) == 1 else Choice(tuple(found))
    return repeat(inner, 0, 1) if optional else inner


def _with_characters_joined(options: list[Expression]) -> list[Expression]:
    """Return the options with the single characters among them as one, where the first of them stands."""
    sets = [each.allowed for each in options if isinstance(each, Characters)]
    together = sets[0] if len(sets) == 1 else from_ranges(itertools.chain.from_iterable(each.ranges for each in sets))
    joined: dict[Expression, None] = {}
    for each in options:
        joined[Characters(together) if isinstance(each, Characters) else each] = None
    return list(joined)


def repeat(part: Expression, least: int = 0, most: int | None = None) -> Expression:
    """Return a part repeated, where that is more than the part itself."""
    if part in (EMPTY, NOTHING) or most == 0:
        return NOTHING if part == NOTHING and least > 0 else EMPTY
    if (least, most) == (1, 1):
        return part
    if isinstance(part, Repeat) and (least, most) in ((0, None), (0, 1), (1, None)):
        return _repeat_again(part, least, most)
    if isinstance(part, Choice) and most is None and least <= 1:
        part = choice(_once(option) for option in part.options)
    return Repeat(part, least, most)


def _once(option: Expression) -> Expression:
    """Return ``x`` for ``x+``: within a repetition that makes no difference."""
    return option.part if isinstance(option, Repeat) and (option.least, option.most) == (1, None) else option


def _repeat_again(part: Repeat, least: int, most: int | None) -> Expression:
    """Return ``(x*)*``, ``(x+)?`` and the like as one repetition, where it is one."""
    if part.least > 1 or (most is None and part.most is not None and part.most < 1):
        return Repeat(part, least, most)
    return Repeat(part.part, min(part.least, least), None if most is None else part.most)


def children(expression: Expression) -> tuple[Expression, ...]:
    """Return the expressions right inside one."""
    if isinstance(expression, Sequence):
        return expression.parts
    if isinstance(expression, Choice):
        return expression.options
    return (expression.part,) if isinstance(expression, Repeat | Look) else ()


def walk(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and everything in it; without recursion."""
    todo = [expression]
    while todo:
        each = todo.pop()
        yield each
        todo += children(each)


def rebuilt(expression: Expression, parts: Iterable[Expression]) -> Expression:
    """Return an expression with other expressions in the place of its :func:`children`."""
    found = tuple(parts)
    if isinstance(expression, Sequence):
        return sequence(found)
    if isinstance(expression, Choice):
        return choice(found)
    if isinstance(expression, Repeat):
        return repeat(found[0], expression.least, expression.most)
    if isinstance(expression, Look):
        return Look(found[0], expression.ahead, expression.negative)
    return expression


def mapped(expression: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """Return an expression with what ``change`` returns of its :func:`children` in their place."""
    parts = children(expression)
    return rebuilt(expression, map(change, parts)) if parts else expression


def has_assertions(expression: Expression) -> bool:
    """Return whether a part of it matches a place, and no characters."""
    return any(isinstance(each, Start | End | Look) for each in walk(expression))


def is_nullable(expression: Expression, nullable: Container[str] = frozenset()) -> bool:
    """Return whether an expression without assertions matches the empty text. ``nullable``: the rules that do."""
    if isinstance(expression, RuleReference):
        return expression.name in nullable
    if isinstance(expression, Choice):
        return any(is_nullable(each, nullable) for each in expression.options)
    if isinstance(expression, Repeat):
        return expression.least == 0 or is_nullable(expression.part, nullable)
    return isinstance(expression, Sequence) and all(is_nullable(each, nullable) for each in expression.parts)
