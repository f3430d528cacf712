"""Expressions of which only the texts of some lengths are wanted."""

from __future__ import annotations

from mistral_api.grammars.expression import (
    NOTHING,
    Characters,
    Choice,
    Expression,
    Repeat,
    Sequence,
    choice,
    repeat,
    sequence,
)


def fit_length(expression: Expression, least: int, most: int | None) -> Expression | None:
    """Return an expression's texts of ``least`` to ``most`` characters; None where its counts cannot say that.

    They can where it is a sequence in which at most one part may be longer or shorter, and that repeats something of
    one length, as ``[a-z][a-z0-9]*`` does. Conditions on places must be gone.
    """
    shortest, longest = lengths(expression)
    if shortest >= least and (most is None or (longest is not None and longest <= most)):
        return expression
    if (most is not None and shortest > most) or (longest is not None and longest < least):
        return NOTHING
    if isinstance(expression, Choice):
        fitting = [fit_length(option, least, most) for option in expression.options]
        return None if None in fitting else choice(option for option in fitting if option is not None)
    if isinstance(expression, Repeat) and (expression.least, expression.most) == (0, 1) and least <= 0:
        fitting_part = fit_length(expression.part, least, most)
        return None if fitting_part is None else repeat(fitting_part, 0, 1)
    return _fit_sequence(expression, least, most)


def _fit_sequence(expression: Expression, least: int, most: int | None) -> Expression | None:
    parts = list(expression.parts) if isinstance(expression, Sequence) else [expression]
    ranges = [lengths(part) for part in parts]
    varying = [place for place, (shortest, longest) in enumerate(ranges) if shortest != longest]
    if len(varying) != 1:
        return None
    place = varying[0]
    others = sum(shortest for at, (shortest, _) in enumerate(ranges) if at != place)
    part = parts[place]
    if not isinstance(part, Repeat) or lengths(part.part)[0] != lengths(part.part)[1]:
        inner = None if len(parts) == 1 else fit_length(part, least - others, _less(most, others))
        return None if inner is None else sequence([*parts[:place], inner, *parts[place + 1 :]])
    fitted = _fit_repeat(part, least - others, _less(most, others))
    return sequence([*parts[:place], fitted, *parts[place + 1 :]])


def _less(most: int | None, others: int) -> int | None:
    return None if most is None else most - others


def _fit_repeat(part: Repeat, least: int, most: int | None) -> Expression:
    """Return the repetition of something of one length with other counts."""
    width = lengths(part.part)[0]
    low = max(part.least, -(-least // width))
    bounds = [bound for bound in (part.most, None if most is None else most // width) if bound is not None]
    high = min(bounds, default=None)
    return NOTHING if high is not None and high < low else repeat(part.part, low, high)


def lengths(expression: Expression) -> tuple[int, int | None]:
    """Return the fewest characters that an expression matches, and the most (None: no end)."""
    if isinstance(expression, Characters):
        return 1, 1
    if isinstance(expression, Repeat):
        shortest, longest = lengths(expression.part)
        endless = longest is None or (expression.most is None and longest > 0)
        return shortest * expression.least, None if endless else (longest or 0) * (expression.most or 0)
    if isinstance(expression, Choice):
        options = [lengths(option) for option in expression.options]
        shortest = min((each for each, _ in options), default=0)
        most = [longest for _, longest in options if longest is not None]
        return shortest, max(most, default=0) if len(most) == len(options) else None
    parts = [lengths(part) for part in expression.parts] if isinstance(expression, Sequence) else []
    most = [longest for _, longest in parts if longest is not None]
    return sum(shortest for shortest, _ in parts), sum(most) if len(most) == len(parts) else None
