"""Character classes of regular expressions: ``[a-z\\d]``, ``\\w`` and ``\\p{Lu}``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from mistral_api.grammars.characters import (
    ALL,
    CharacterClass,
    CharacterSet,
    category,
    digits,
    exactly,
    from_ranges,
    of,
    spaces,
)
from mistral_api.grammars.errors import InvalidSyntax, Untranslatable
from mistral_api.grammars.escapes import EscapeReader

CLASS_LETTERS = "dDwWsSpP"
_PROPERTY = re.compile(r"\\[pP](?:\{(?:(?:gc|General_Category)=)?(\^?)([A-Za-z_]+)\}|([A-Z]))")
# The names of general categories (Unicode, PropertyValueAliases).
_CATEGORIES = {
    "Letter": "L",
    "Lowercase_Letter": "Ll",
    "Uppercase_Letter": "Lu",
    "Titlecase_Letter": "Lt",
    "Modifier_Letter": "Lm",
    "Other_Letter": "Lo",
    "Mark": "M",
    "Number": "N",
    "Decimal_Number": "Nd",
    "Punctuation": "P",
    "Symbol": "S",
    "Separator": "Z",
    "Space_Separator": "Zs",
}
_SHORT_CATEGORY = re.compile(r"L[lutmo]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Z[slp]?")
# Written for any character; the two halves do not make it up where dialects differ in them.
_EVERYTHING = (r"\s\S", r"\S\s", r"\w\W", r"\W\w", r"\d\D", r"\D\d")
_REST = from_ranges([(0x20000, 0x10FFFF)])


class ClassReader:
    """Reads the classes of one pattern. ``word`` returns what ``\\w`` stands for in it."""

    def __init__(self, pattern: str, escapes: EscapeReader, word: Callable[[], CharacterClass]) -> None:
        self._text = pattern
        self._escapes = escapes
        self._known: dict[str, Callable[[], CharacterClass]] = {"d": digits, "w": word, "s": spaces}

    def _refuse(self, reason: str, position: int) -> NoReturn:
        raise Untranslatable(f"{reason} (at character {position + 1})")

    def read(self, position: int, *, ignore_case: bool) -> tuple[CharacterClass, int]:
        """Return the class that begins here, and where the text goes on. Raises Untranslatable."""
        start, position = position, position + 1
        inverse = self._text[position : position + 1] == "^"
        position += inverse
        if self._text[position : position + 1] == "]":
            self._refuse("a class that begins with ']' has no meaning that all agree on", start)
        found, first = exactly(CharacterSet()), position
        while (letter := self._text[position : position + 1]) != "]":
            if not letter:
                raise InvalidSyntax(f"the '[' is not closed (at character {start + 1})")
            self._refuse_set_operations(position)
            part, position = self._member(position)
            found |= part
        if any(pair in self._text[first:position] for pair in _EVERYTHING):
            found = exactly(ALL)
        found = found.without_case() if ignore_case else found
        return ~found if inverse else found, position + 1

    def _refuse_set_operations(self, position: int) -> None:
        for mark in ("&&", "~~", "[:"):
            if self._text.startswith(mark, position):
                self._refuse(f"'{mark}' in a class is not supported", position)

    def _member(self, position: int) -> tuple[CharacterClass, int]:
        """Read a character, a range or a class."""
        first, end = self._end_of_range(position)
        if isinstance(first, CharacterClass):
            return first, end
        if self._text[end : end + 1] != "-" or self._text[end + 1 : end + 2] in ("", "]"):
            return exactly(from_ranges([(first, first)])), end
        last, last_end = self._end_of_range(end + 1)
        if isinstance(last, CharacterClass):  # then the dash is one
            return exactly(from_ranges([(first, first)]) | of("-")) | last, last_end
        if last < first:
            what = f"the range '{self._text[position:last_end]}' is out of order"
            raise InvalidSyntax(f"{what} (at character {position + 1})")
        return exactly(from_ranges([(first, last)])), last_end

    def _end_of_range(self, position: int) -> tuple[int | CharacterClass, int]:
        """Return the code of a character, or a class, and where the text goes on."""
        letter = self._text[position]
        if letter != "\\":
            return ord(letter), position + 1
        following = self._text[position + 1 : position + 2]
        if following == "b":
            return 8, position + 2
        if following and following in CLASS_LETTERS:
            return self.escape(position)
        found, end = self._escapes.read(position)
        return next(found.codes()), end

    def escape(self, position: int) -> tuple[CharacterClass, int]:
        """Return the class of an escape such as ``\\d``, and where the text goes on."""
        letter = self._text[position + 1]
        if letter in "pP":
            return self._property(position)
        found = self._known[letter.lower()]()
        return (~found if letter.isupper() else found), position + 2

    def _property(self, position: int) -> tuple[CharacterClass, int]:
        found = _PROPERTY.match(self._text, position)
        name = (found[2] or found[3]) if found else ""
        name = _CATEGORIES.get(name, name)
        if found is None or not _SHORT_CATEGORY.fullmatch(name):
            shown = found[0] if found else self._text[position : position + 8]
            self._refuse(f"the property '{shown}' is not supported", position)
        known = category(name)
        # What lies beyond is left out either way.
        chosen = CharacterClass(known, known | _REST)
        inverse = (self._text[position + 1] == "P") != bool(found[1])
        return (~chosen if inverse else chosen), found.end()
