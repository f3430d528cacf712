"""Ranges of numbers as expressions in GBNF.

A number is written without an exponent, with so many decimals that it has at most 15 digits near its bounds: so many
are told apart by doubles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal

from mistral_api.constraints.schemas.values import LARGEST, Bound, NumberRange

_DIGITS_OF_DOUBLE = 15
_FEW_DECIMALS = 6


def integer_range(low: int | None, high: int | None) -> str:
    """Return the integers between bounds."""
    low = -LARGEST if low is None else low
    high = LARGEST if high is None else high
    ways = [f'"-" ({_whole_range(max(1, -high), -low)})'] if low < 0 else []
    return " | ".join(ways + [_whole_range(max(0, low), high)] * (high >= 0))


def number_range(value: NumberRange) -> str | None:
    """Return the numbers between bounds; None where none has few enough decimals."""
    room = _decimals(value)
    low = _scaled(value.low, room, upward=True) if value.low else -LARGEST * 10**room
    high = _scaled(value.high, room, upward=False) if value.high else LARGEST * 10**room
    ways = []
    if low < 0:
        ways += [f'"-" ({each})' for each in _between(max(1, -high), -low, room)]
    if high >= 0:
        ways += _between(max(0, low), high, room)
    return " | ".join(ways) or None


def _decimals(value: NumberRange) -> int:
    """Return how many decimals numbers have at most."""
    bounds = [bound.value for bound in (value.low, value.high) if bound is not None]
    whole = max(len(str(abs(int(bound)))) for bound in bounds)
    wanted = max(_FEW_DECIMALS, *(-int(bound.as_tuple().exponent) for bound in bounds))
    return max(0, min(wanted, _DIGITS_OF_DOUBLE - whole))


def _scaled(bound: Bound, room: int, *, upward: bool) -> int:
    """Return a bound in units of the last decimal, rounded into the range."""
    exact = bound.value * Decimal(10) ** room
    rounded = math.ceil(exact) if upward else math.floor(exact)
    if bound.exclusive and rounded == exact:
        rounded += 1 if upward else -1
    return rounded


def _between(low: int, high: int, room: int) -> list[str]:
    """Return the numbers of at least 0 between two, in units of the last decimal."""
    if low > high:
        return []
    unit = 10**room
    (first, least), (last, most) = divmod(low, unit), divmod(high, unit)
    if first == last:
        return [_of_whole(f'"{first}"', least, most, room)]
    ways = []
    if least:
        ways.append(_of_whole(f'"{first}"', least, unit - 1, room))
        first += 1
    if most < unit - 1:
        ways.append(_of_whole(f'"{last}"', 0, most, room))
        last -= 1
    if first <= last:
        ways.append(_of_whole(f"({_whole_range(first, last)})", 0, unit - 1, room))
    return ways


def _of_whole(whole: str, low: int, high: int, room: int) -> str:
    """Return a whole part with the decimals between two; zeros at their end may be missing."""
    if not room or not high:
        return whole if not room else f'{whole} ("." [0]{{1,{room}}})?'
    return f'{whole} ("." ({" | ".join(_digits(low, high, room))})){"" if low else "?"}'


def _digits(low: int, high: int, count: int) -> Iterator[str]:
    """Yield one to ``count`` digits, which stand for a number between two when they are filled up with zeros."""
    unit = 10 ** (count - 1)
    first, last = low // unit, high // unit
    if low % unit or (first == last and (high + 1) % unit):
        yield f"[{first}]{_further(low % unit, high - first * unit if first == last else unit - 1, count - 1)}"
        first += 1
    if first <= last and (high + 1) % unit:
        yield f"[{last}]{_further(0, high % unit, count - 1)}"
        last -= 1
    if first <= last:
        yield _digit(first, last) + _any_digits(0, count - 1)


def _further(low: int, high: int, count: int) -> str:
    """Return what follows the first digits: digits, or nothing where zeros are allowed."""
    if not count:
        return ""
    return f" ({' | '.join(_digits(low, high, count))}){'' if low else '?'}"


def _whole_range(low: int, high: int) -> str:
    """Return the integers of at least 0 between two, without leading zeros."""
    ways: list[str] = []
    for length in range(len(str(low)), len(str(high)) + 1):
        least = max(low, 10 ** (length - 1) if length > 1 else 0)
        most = min(high, 10**length - 1)
        ways += _of_one_length(least, most, length)
    return " | ".join(ways)


def _of_one_length(low: int, high: int, count: int) -> Iterator[str]:
    """Yield the numbers of ``count`` digits between two, leading zeros included."""
    unit = 10 ** (count - 1)
    first, last = low // unit, high // unit
    if first == last and (low % unit or (high + 1) % unit):
        yield from (f"[{first}] {each}" for each in _of_one_length(low % unit, high % unit, count - 1))
        return
    if low % unit:
        yield from (f"[{first}] {each}" for each in _of_one_length(low % unit, unit - 1, count - 1))
        first += 1
    if (high + 1) % unit:
        yield from (f"[{last}] {each}" for each in _of_one_length(0, high % unit, count - 1))
        last -= 1
    if first <= last:
        yield _digit(first, last) + (_any_digits(count - 1, count - 1))


def _digit(first: int, last: int) -> str:
    return f"[{first}]" if first == last else f"[{first}-{last}]"


def _any_digits(least: int, most: int) -> str:
    if not most:
        return ""
    return f" [0-9]{{{least},{most}}}"
