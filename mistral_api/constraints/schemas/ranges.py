"""Integers and numbers of a schema: their bounds, and what they are multiples of."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import TypeGuard

from mistral_api.constraints.schemas.context import Bases, Context, holder
from mistral_api.constraints.schemas.errors import Impossible
from mistral_api.constraints.schemas.number_grammar import number_range
from mistral_api.constraints.schemas.values import LARGEST, Bound, IntegerRange, Literals, NumberRange, Simple, Value
from mistral_api.payload_types import JsonObject

_INT64 = 2**63 - 1
# The most multiples that are listed.
MOST_LISTED = 300
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_EMPTY = "no number is within its bounds"
_NOT_LISTED = f"multiples are enforced only where bounds leave at most {MOST_LISTED} of them"
_ONLY_GRAMMAR = (
    "llama.cpp cannot enforce bounds of numbers in the arguments of a strict tool that the model may choose to call"
)


def integers(context: Context, bases: Bases) -> Value:
    """Return the integers that fit these parts."""
    low, high = _integer_bounds(context, bases)
    _check_order(context, bases, low, high)
    step = _step(context, bases)
    if step > 1:
        listed = _listed(context, bases, low, high, Fraction(step))
        if listed is not None:
            return listed
    if low is None and high is None:
        return Simple("integer")
    if len(bases) > 1 or not _is_exact(bases[0], low, high):
        context.changed()
    return IntegerRange(low, high)


def _is_exact(base: JsonObject, low: int | None, high: int | None) -> bool:
    """Whether llama.cpp reads the bounds as they are meant: one on each side, integers, and not all below zero."""
    given = [base[keyword] for keyword in _BOUNDS if keyword in base]
    plain = all(type(value) is int and abs(value) < _INT64 for value in given)
    one_sided = ("minimum" in base) + ("exclusiveMinimum" in base) < 2 and (
        ("maximum" in base) + ("exclusiveMaximum" in base) < 2
    )
    return plain and one_sided and not (low is None and high is not None and high < 0)


def _check_order(context: Context, bases: Bases, low: Decimal | int | None, high: Decimal | int | None) -> None:
    if low is not None and high is not None and low > high:
        raise Impossible(context.parts.place(holder(bases, *_BOUNDS)), _EMPTY)
    if (low is not None and low > LARGEST) or (high is not None and high < -LARGEST):
        part = holder(bases, *_BOUNDS)
        context.give_up(part, next(keyword for keyword in _BOUNDS if keyword in part), "it is beyond 15 digits")


def _integer_bounds(context: Context, bases: Bases) -> tuple[int | None, int | None]:
    low, high = number_bounds(context, bases)
    least = None if low is None else math.ceil(low.value)
    if low is not None and least is not None and low.exclusive and least == low.value:
        least += 1
    most = None if high is None else math.floor(high.value)
    if high is not None and most is not None and high.exclusive and most == high.value:
        most -= 1
    return _within(least, -LARGEST), _within(most, LARGEST)


def _within(bound: int | None, farthest: int) -> int | None:
    """Return a bound, None where it is beyond what is written anyway."""
    beyond = bound is not None and (bound > farthest if farthest > 0 else bound < farthest)
    return None if beyond else bound


def number_bounds(context: Context, bases: Bases) -> tuple[Bound | None, Bound | None]:
    """Return the narrowest bounds of these parts."""
    lows = [each for base in bases for each in _given(context, base, "minimum", "exclusiveMinimum")]
    highs = [each for base in bases for each in _given(context, base, "maximum", "exclusiveMaximum")]
    low = max(lows, key=lambda bound: (bound.value, bound.exclusive), default=None)
    high = min(highs, key=lambda bound: (bound.value, not bound.exclusive), default=None)
    return low, high


def _given(context: Context, base: JsonObject, inclusive: str, exclusive: str) -> list[Bound]:
    """Return the bounds on one side; ``true`` as the exclusive one is draft 4's way to make the other one exclusive."""
    found = []
    draft4 = base.get(exclusive) is True
    for keyword, left_out in ((inclusive, draft4), (exclusive, True)):
        value = base.get(keyword)
        if value is None or (keyword == exclusive and isinstance(value, bool)):
            continue
        if not is_number(value):
            context.changed()
            context.give_up(base, keyword, "it has to be a number")
            continue
        found.append(Bound(Decimal(repr(value)), left_out))
    if draft4:
        context.changed()
    return found


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a number of JSON, which knows no NaN and nothing infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _step(context: Context, bases: Bases) -> int:
    """Return what integers have to be multiples of."""
    step = 1
    for base in bases:
        given = multiple_of(context, base)
        if given is None or 1 % given == 0:
            continue
        if given.denominator != 1:
            context.give_up(base, "multipleOf", "it is enforced for integers only where it is an integer")
            continue
        step = math.lcm(step, given.numerator)
    return step


def multiple_of(context: Context, base: JsonObject) -> Fraction | None:
    """Return what numbers have to be multiples of; None where a part does not say, or that is given up."""
    value = base.get("multipleOf")
    if value is None:
        return None
    if not is_number(value) or value <= 0:
        context.give_up(base, "multipleOf", "it has to be a number above 0")
        return None
    return Fraction(Decimal(repr(value)))


def _listed(
    context: Context, bases: Bases, low: Decimal | int | None, high: Decimal | int | None, step: Fraction
) -> Literals | None:
    """Return the multiples between bounds; None where there are too many, and that is given up."""
    part = holder(bases, "multipleOf")
    if low is None or high is None or (Fraction(high) - Fraction(low)) / step > MOST_LISTED:
        context.give_up(part, "multipleOf", _NOT_LISTED)
        return None
    first, last = math.ceil(Fraction(low) / step), math.floor(Fraction(high) / step)
    texts = [_text(number * step) for number in range(first, last + 1) if is_multiple(number * step, step)]
    if not texts:
        raise Impossible(context.parts.place(part, "multipleOf"), "no multiple is within the bounds")
    context.changed()
    return Literals(tuple(texts))


def is_multiple(value: Fraction, step: Fraction) -> bool:
    """Return whether a number is a multiple, and validators take it for one: they divide doubles."""
    if (value / step).denominator != 1:
        return False
    if step.denominator == 1:
        return True
    try:
        return (float(value) / float(step)).is_integer()
    except OverflowError:  # an integer that no double holds
        return False


def _text(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else repr(float(value))


def numbers(context: Context, bases: Bases) -> Value:
    """Return the numbers that fit these parts."""
    steps = [step for base in bases if (step := multiple_of(context, base)) is not None]
    if steps and all(step.denominator == 1 for step in steps):
        context.changed()
        return integers(context, bases)
    low, high = number_bounds(context, bases)
    _check_order(context, bases, low.value if low else None, high.value if high else None)
    if low and high and low.value == high.value and (low.exclusive or high.exclusive):
        raise Impossible(context.parts.place(holder(bases, *_BOUNDS)), _EMPTY)
    if steps:
        listed = _listed_numbers(context, bases, low, high, steps)
        if listed is not None:
            return listed
    return _number_range(context, bases, low, high)


def _listed_numbers(
    context: Context, bases: Bases, low: Bound | None, high: Bound | None, steps: list[Fraction]
) -> Literals | None:
    if len(steps) > 1:
        context.give_up(holder(bases, "multipleOf"), "multipleOf", "two of them do not go together")
        return None
    found = _listed(context, bases, low.value if low else None, high.value if high else None, steps[0])
    ends = {float(bound.value) for bound in (low, high) if bound and bound.exclusive}
    return found and Literals(tuple(text for text in found.texts if float(text) not in ends))


def _number_range(context: Context, bases: Bases, low: Bound | None, high: Bound | None) -> Value:
    if low is not None and low.value < -LARGEST:
        low = None
    if high is not None and high.value > LARGEST:
        high = None
    if low is None and high is None:
        return Simple("number")
    part = holder(bases, *_BOUNDS)
    keyword = next(keyword for keyword in _BOUNDS if keyword in part)
    if not context.may_use_grammar(part, keyword, _ONLY_GRAMMAR):
        return Simple("number")
    found = NumberRange(low, high)
    if number_range(found) is None:
        context.give_up(part, keyword, "all numbers within its bounds have more decimals than are enforced")
        return Simple("number")
    return found
