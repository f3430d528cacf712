"""Expressions of a text as expressions of that text between the quotes of a JSON string (RFC 8259, section 7).

Each value is written in one way: control characters, quotes and backslashes escaped, with the short escape where there
is one, and all else as it is.
"""

from __future__ import annotations

from mistral_api.grammars.characters import CharacterSet, from_ranges, of
from mistral_api.grammars.expression import (
    NOTHING,
    Characters,
    Expression,
    characters,
    choice,
    literal,
    mapped,
    sequence,
)
from mistral_api.grammars.sized_cache import SizedCache
from mistral_api.grammars.time_limit import check_time

# A set of characters takes about 100 bytes for each of its ranges, and what it becomes takes them again.
_known: SizedCache[CharacterSet, Expression] = SizedCache(lambda allowed, _: 2_000 + 200 * len(allowed.ranges))
_SHORT = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
# llama.cpp's strings leave out the last control character of ASCII as well, so it is escaped.
_TO_ESCAPE = from_ranges([(0, 0x1F), (0x7F, 0x7F)]) | of('"\\')
_LONG = _TO_ESCAPE - of("".join(_SHORT))
_HEXADECIMAL = "0123456789abcdef"


def as_json_text(expression: Expression) -> Expression:
    """Return what an expression's texts look like inside a JSON string. Conditions on places must be gone."""
    if isinstance(expression, Characters):
        check_time()
        found = _known.find(expression.allowed)
        if found is None:
            found = _escaped(expression.allowed)
            _known.add(expression.allowed, found)
        return found
    return mapped(expression, as_json_text)


def _escaped(allowed: CharacterSet) -> Expression:
    raw = characters(allowed - _TO_ESCAPE)
    short = of("".join(letter for code, letter in _SHORT.items() if ord(code) in allowed))
    options = [raw] if raw != NOTHING else []
    if short:
        options.append(sequence([literal("\\"), characters(short)]))
    return choice([*options, *_long_escapes(allowed & _TO_ESCAPE)])


def _long_escapes(allowed: CharacterSet) -> list[Expression]:
    if allowed == _TO_ESCAPE:  # then a control character with a short escape may have this one too
        low = characters(of(_HEXADECIMAL + "ABCDEF"))
        last = choice([sequence([characters(of("01")), low]), sequence([literal("7"), characters(of("fF"))])])
        return [sequence([literal("\\u00"), last])]
    found, left = list[Expression](), allowed & _LONG
    for high in (0, 1, 7):
        digits = "".join(digit for number, digit in enumerate(_HEXADECIMAL) if high * 16 + number in left)
        if digits:
            found.append(sequence([literal(f"\\u00{high}"), characters(of(digits + digits.upper()))]))
    return found
