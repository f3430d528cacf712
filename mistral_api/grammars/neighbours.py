"""Conditions on a place, such as ``^``, ``$`` and ``(?!-)``, said by what stands beside them.

``[a-z-]{1,63}(?<!-)$`` is ``[a-z-]{0,62}[a-z]``. This keeps an expression about as short as it is, which the way over
an automaton does not where it counts. What looks at more than one character is left to that way.
"""

from __future__ import annotations

from mistral_api.grammars.characters import CharacterSet
from mistral_api.grammars.expression import (
    EMPTY,
    NOTHING,
    Characters,
    Choice,
    End,
    Expression,
    Look,
    Repeat,
    Sequence,
    Start,
    characters,
    choice,
    has_assertions,
    is_nullable,
    repeat,
    sequence,
)
from mistral_api.grammars.time_limit import check_time

_MOST_WAYS = 200


class _Unresolved(Exception):
    """A condition cannot be said by its neighbours."""


def resolve_conditions(expression: Expression) -> Expression | None:
    """Return an expression of a whole text without conditions on places; None where only an automaton can tell."""
    done: list[Expression] = []
    todo = [_parts(expression)]
    try:
        for _ in range(_MOST_WAYS):
            if not todo:
                return choice(done)
            check_time()
            way = todo.pop(0)
            ways = _step(way)
            if ways is None:
                done.append(sequence(way))
            else:
                todo = ways + todo
    except _Unresolved:
        pass
    return None


def _parts(expression: Expression) -> list[Expression]:
    return list(expression.parts) if isinstance(expression, Sequence) else [expression]


def _is_condition(part: Expression) -> bool:
    return isinstance(part, Start | End | Look)


def _step(way: list[Expression]) -> list[list[Expression]] | None:
    """Open the first part with a condition within it, or meet the first condition.

    Return the ways that this leaves, of which there may be none; None where there is no condition.
    """
    place = next((at for at, part in enumerate(way) if has_assertions(part)), None)
    if place is None:
        return None
    before, part, after = way[:place], way[place], way[place + 1 :]
    if not _is_condition(part):
        options = _options(part)
        if len(options) > _MOST_WAYS:
            raise _Unresolved
        return [[*before, *option, *after] for option in options]
    found = _met(before, part, after)
    return [] if found is None or NOTHING in found else [found]


def _options(part: Expression) -> list[list[Expression]]:
    if isinstance(part, Choice):
        return [_parts(option) for option in part.options]
    if isinstance(part, Repeat) and (part.least, part.most) == (0, 1):
        return [_parts(part.part), []]
    raise _Unresolved


def _met(before: list[Expression], condition: Expression, after: list[Expression]) -> list[Expression] | None:
    """Return the parts around a condition so that it holds; None where it cannot. There is none before it."""
    if isinstance(condition, Start):
        return after if all(map(is_nullable, before)) else None
    if isinstance(condition, End):
        kept = _at_the_end(after)
        return None if kept is None else before + kept
    if not isinstance(condition, Look) or not isinstance(condition.part, Characters):
        raise _Unresolved
    allowed = ~condition.part.allowed if condition.negative else condition.part.allowed
    if condition.ahead:
        return [*before, *_parts(_edge(after, allowed, condition.negative, backwards=False))]
    return [*_parts(_edge(before[::-1], allowed, condition.negative, backwards=True)), *after]


def _at_the_end(after: list[Expression]) -> list[Expression] | None:
    """Return what is left of the parts behind the end: conditions on the text before; None where they need more."""
    kept: list[Expression] = []
    for part in after:
        if isinstance(part, Start) or (isinstance(part, Look) and not part.ahead):
            kept.append(part)
        elif isinstance(part, Look):
            if not isinstance(part.part, Characters):
                raise _Unresolved
            if not part.negative:
                return None
        elif has_assertions(part):
            raise _Unresolved
        elif not isinstance(part, End) and not is_nullable(part):
            return None
    return kept


def _edge(parts: list[Expression], allowed: CharacterSet, at_edge: bool, *, backwards: bool) -> Expression:
    """Return parts whose first character is an allowed one.

    ``at_edge``: whether there may be no character. ``backwards``: the parts are those before the place, the nearest
    first, and what is meant is their last character.
    """
    check_time()
    if not parts:
        return EMPTY if at_edge else NOTHING
    first, rest = parts[0], parts[1:]
    if isinstance(first, Characters):
        return _in_order([characters(first.allowed & allowed), *rest], backwards)
    if isinstance(first, Sequence):
        inner = first.parts[::-1] if backwards else first.parts
        return _edge([*inner, *rest], allowed, at_edge, backwards=backwards)
    if isinstance(first, Choice) and not has_assertions(first):
        return _edge_of_choice(first, rest, allowed, at_edge, backwards)
    if isinstance(first, Repeat) and not has_assertions(first) and not is_nullable(first.part):
        return _edge_of_repeat(first, rest, allowed, at_edge, backwards)
    if not _is_condition(first):
        raise _Unresolved
    # Another condition on the same place.
    return sequence([first, _edge(rest, allowed, at_edge, backwards=backwards)])


def _edge_of_choice(
    first: Choice, rest: list[Expression], allowed: CharacterSet, at_edge: bool, backwards: bool
) -> Expression:
    """Return the options that have characters, and once, if one may have none, what the rest begins with."""
    taken = choice(_edge([option], allowed, at_edge=False, backwards=backwards) for option in first.options)
    ways = [_in_order([taken, *rest], backwards)]
    if is_nullable(first):
        ways.append(_edge(rest, allowed, at_edge, backwards=backwards))
    return choice(ways)


def _edge_of_repeat(
    first: Repeat, rest: list[Expression], allowed: CharacterSet, at_edge: bool, backwards: bool
) -> Expression:
    once = _edge([first.part], allowed, at_edge=False, backwards=backwards)
    fewer = repeat(first.part, max(first.least - 1, 0), None if first.most is None else first.most - 1)
    taken = _in_order([once, fewer, *rest], backwards)
    return taken if first.least else choice([taken, _edge(rest, allowed, at_edge, backwards=backwards)])


def _in_order(parts: list[Expression], backwards: bool) -> Expression:
    return sequence(parts[::-1] if backwards else parts)
