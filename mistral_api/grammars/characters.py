"""Sets of characters, and the classes that regular expressions have names for.

Dialects differ in these classes: to JavaScript ``\\d`` is ``[0-9]``, to Python and Rust every decimal digit of Unicode;
``.`` leaves out only the line feed in Python and four characters in JavaScript. A value is read by a validator that
nobody here knows, so each class is known twice: what all dialects take (``least``), and what any of them takes
(``most``). A class stands for its least, and a class that is left out, as in ``[^\\d]``, for its most. Sources:
ECMA-262 (CharacterClassEscape, WhiteSpace, LineTerminator), Python's ``re``, the documentation of Rust's crate
``regex``.
"""

from __future__ import annotations

import itertools
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

LAST_CODE = 0x10FFFF
# Halves of surrogate pairs are no characters of a text in UTF-8.
_SURROGATES = (0xD800, 0xDFFF)
# Beyond are rare ideographs, which have no case, and are letters.
LAST_LOOKED_AT = 0x1FFFF
# Word characters outside ASCII are about 770 ranges. Gaps between them that are smaller than this count as word
# characters too, but for Latin letters, general punctuation and that of Chinese and Japanese.
_SMALL_GAP = 24
_LATIN_END, _LONG_RANGE = 0x250, 64
_EXACT_RANGES = ((0, _LATIN_END - 1), (0x2000, 0x206F), (0x3000, 0x303F))


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """Code points, as sorted ranges that neither touch nor overlap. Surrogates are never among them."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __contains__(self, code: int) -> bool:
        place = bisect_right(self.ranges, (code, LAST_CODE))
        return place > 0 and code <= self.ranges[place - 1][1]

    def __or__(self, other: CharacterSet) -> CharacterSet:
        return from_ranges((*self.ranges, *other.ranges))

    def __and__(self, other: CharacterSet) -> CharacterSet:
        return ~(~self | ~other)

    def __sub__(self, other: CharacterSet) -> CharacterSet:
        return self & ~other

    def __invert__(self) -> CharacterSet:
        found, start = [], 0
        for low, high in self.ranges:
            found.append((start, low - 1))
            start = high + 1
        return from_ranges([*found, (start, LAST_CODE)])

    def is_wide(self) -> bool:
        """Return whether it has more than one character."""
        return len(self.ranges) > 1 or any(low < high for low, high in self.ranges)

    def codes(self) -> Iterator[int]:
        """Yield the code points in order."""
        for low, high in self.ranges:
            yield from range(low, high + 1)


def from_ranges(ranges: Iterable[tuple[int, int]]) -> CharacterSet:
    """Return the set of all code points in these ranges; empty ranges, and surrogates, are left out."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(_without_surrogates(ranges)):
        if merged and (low <= merged[-1][1] + 1 or (low, merged[-1][1]) == (_SURROGATES[1] + 1, _SURROGATES[0] - 1)):
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return CharacterSet(tuple(merged))


def _without_surrogates(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    first, last = _SURROGATES
    for low, high in ranges:
        for start, end in ((low, min(high, first - 1)), (max(low, last + 1), high)):
            if start <= end:
                yield start, end


def of(characters: str) -> CharacterSet:
    """Return the set of the characters of a text."""
    return from_ranges((ord(each), ord(each)) for each in characters)


def _between(*pairs: str) -> CharacterSet:
    return from_ranges((ord(pair[0]), ord(pair[1])) for pair in pairs)


ALL = from_ranges([(0, LAST_CODE)])
LINE_FEED = of("\n")
# What JavaScript's dot leaves out. Python's and Rust's leave out the line feed only.
LINE_ENDS = of("\n\r\u2028\u2029")


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """What all dialects take for a class, and what any of them does."""

    least: CharacterSet
    most: CharacterSet

    def __or__(self, other: CharacterClass) -> CharacterClass:
        return CharacterClass(self.least | other.least, self.most | other.most)

    def __invert__(self) -> CharacterClass:
        return CharacterClass(~self.most, ~self.least)

    def without_case(self) -> CharacterClass:
        """Return the class with the other cases of its letters."""
        least, most = _other_cases(self.least, _simple_cases()), _other_cases(self.most, _all_cases())
        return CharacterClass(self.least | least, self.most | most)


def exactly(characters: CharacterSet) -> CharacterClass:
    """Return the class of characters on which all dialects agree."""
    return CharacterClass(characters, characters)


def united(classes: Sequence[CharacterClass]) -> CharacterClass:
    """Return the class of all characters of these classes."""
    least = from_ranges(itertools.chain.from_iterable(each.least.ranges for each in classes))
    return CharacterClass(least, from_ranges(itertools.chain.from_iterable(each.most.ranges for each in classes)))


@cache
def digits() -> CharacterClass:
    """Return ``\\d``."""
    ascii_digits = _between("09")
    return CharacterClass(ascii_digits, ascii_digits | category("Nd"))


@cache
def word() -> CharacterClass:
    """Return ``\\w``. Its most has also small gaps among the letters of a script, so that it has fewer ranges."""
    ascii_word = _between("09", "AZ", "az", "__")
    return CharacterClass(ascii_word, _joined(ascii_word | category("L", "N", "M", "Pc", "Cf", "Cn", "Co") | _beyond()))


@cache
def unicode_word() -> CharacterClass:
    """Return ``\\w`` where nobody but Python and Rust reads it: with letters of all scripts that have many in a row."""
    letters = category("L", "N", "M", "Pc").ranges
    found = from_ranges(each for each in letters if each[1] < _LATIN_END or each[1] - each[0] >= _LONG_RANGE)
    return CharacterClass(word().least | found, word().most)


@cache
def spaces() -> CharacterClass:
    """Return ``\\s``."""
    common = of("\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000") | _between("\u2000\u200a")
    return CharacterClass(common, common | of("\x1c\x1d\x1e\x1f\x85\u180e\ufeff"))


@cache
def ecma_digits() -> CharacterClass:
    """Return what ``\\d`` is to JavaScript."""
    return exactly(digits().least)


@cache
def ecma_word() -> CharacterClass:
    """Return what ``\\w`` is to JavaScript."""
    return exactly(word().least)


@cache
def ecma_spaces() -> CharacterClass:
    """Return what ``\\s`` is to JavaScript (ECMA-262, WhiteSpace and LineTerminator)."""
    return exactly(spaces().least | of("\ufeff"))


@cache
def category(*names: str) -> CharacterSet:
    """Return the characters below U+20000 whose category of Unicode begins with one of these names, as Lu and L do."""
    return from_ranges(each for name, ranges in _categories().items() if name.startswith(names) for each in ranges)


@cache
def _categories() -> dict[str, list[tuple[int, int]]]:
    """Return the ranges of each category."""
    found: dict[str, list[tuple[int, int]]] = {}
    start = 0
    for name, codes in itertools.groupby(map(unicodedata.category, map(chr, range(LAST_LOOKED_AT + 1)))):
        following = start + sum(1 for _ in codes)
        found.setdefault(name, []).append((start, following - 1))
        start = following
    return found


def _beyond() -> CharacterSet:
    return from_ranges([(LAST_LOOKED_AT + 1, LAST_CODE)])


def _joined(characters: CharacterSet) -> CharacterSet:
    """Return the set with the small gaps between its ranges."""
    ranges = characters.ranges
    gaps = [(one[1] + 1, other[0] - 1) for one, other in itertools.pairwise(ranges)]
    small = from_ranges(gap for gap in gaps if gap[1] - gap[0] < _SMALL_GAP)
    return characters | (small - from_ranges(_EXACT_RANGES))


def _other_cases(allowed: CharacterSet, cases: Mapping[int, Sequence[int]]) -> CharacterSet:
    """Return the other cases of the letters of a set. It looks through what is shorter, the set or the cases."""
    size = sum(high - low + 1 for low, high in allowed.ranges)
    codes = allowed.codes() if size < len(cases) else filter(allowed.__contains__, cases)
    return from_ranges((other, other) for code in codes for other in cases.get(code, ()))


def _by_letter(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for letter, other in pairs:
        found.setdefault(letter, []).append(other)
    return found


@cache
def _simple_cases() -> dict[int, list[int]]:
    """Return lower and upper letters that are each other's other case, both ways."""
    letters = [chr(code) for code in range(LAST_LOOKED_AT + 1)]
    pairs = [(ord(each), ord(each.upper())) for each in letters if _has_one_upper_case(each)]
    return _by_letter(pairs + [(upper, lower) for lower, upper in pairs])


def _has_one_upper_case(letter: str) -> bool:
    upper = letter.upper()
    return upper != letter and len(upper) == 1 and upper.lower() == letter


@cache
def _all_cases() -> dict[int, list[int]]:
    """Return each letter with each one that any dialect may take for it without regard to case."""
    families: dict[str, set[str]] = {}
    for letter in map(chr, range(LAST_LOOKED_AT + 1)):
        forms = {letter, *(each for each in (letter.lower(), letter.upper(), letter.casefold()) if len(each) == 1)}
        if len(forms) > 1:
            families.setdefault(_folded(letter), set()).update(forms)
    families["i"].update("ıİ")
    return _by_letter((ord(one), ord(two)) for each in families.values() for one in each for two in each if one != two)


def _folded(letter: str) -> str:
    folded = letter.upper().casefold()
    return folded if len(folded) == 1 else letter.lower()[:1]
