"""Character classes of regular expressions: ``[a-z\\d]``, ``\\w`` and ``\\p{Lu}``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from mistral_api.grammars.characters import (
    ALL,
    CharacterClass,
    category,
    exactly,
    from_ranges,
    of,
    united,
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
    """Reads the classes of one pattern. ``known``: what ``\\d``, ``\\w`` and ``\\s`` stand for in it."""

    def __init__(self, pattern: str, escapes: EscapeReader, known: Mapping[str, Callable[[], CharacterClass]]) -> None:
        self._text = pattern
        self._escapes = escapes
        self._known = known
        # The classes that have been read, by their names.
        self._read: dict[str, CharacterClass] = {}
        self._without_case: dict[CharacterClass, CharacterClass] = {}

    def _refuse(self, reason: str, position: int) -> NoReturn:
        raise Untranslatable(f"{reason} (at character {position + 1})")

    def read(self, position: int, *, ignore_case: bool) -> tuple[CharacterClass, int]:
        """Return the class that begins here, and where the text goes on. Raises Untranslatable."""
        start, position = position, position + 1
        inverse = self._text[position : position + 1] == "^"
        position += inverse
        if self._text[position : position + 1] == "]":
            self._refuse("a class that begins with ']' has no meaning that all agree on", start)
        # Each member once, by its text: the classes among them have hundreds of ranges.
        members, first = dict[str, CharacterClass](), position
        while (letter := self._text[position : position + 1]) != "]":
            if not letter:
                raise InvalidSyntax(f"the '[' is not closed (at character {start + 1})")
            self._refuse_set_operations(position)
            member = position
            part, position = self._member(member)
            members.setdefault(self._text[member:position], part)
        is_everything = any(pair in self._text[first:position] for pair in _EVERYTHING)
        found = exactly(ALL) if is_everything else united(list(members.values()))
        found = self.without_case(found) if ignore_case else found
        return ~found if inverse else found, position + 1

    def without_case(self, found: CharacterClass) -> CharacterClass:
        """Return a class with the other cases of its letters; the same class again costs nothing."""
        if found not in self._without_case:
            self._without_case[found] = found.without_case()
        return self._without_case[found]

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
        return self._named(letter), position + 2

    def _named(self, letter: str) -> CharacterClass:
        if letter not in self._read:
            found = self._known[letter.lower()]()
            self._read[letter] = ~found if letter.isupper() else found
        return self._read[letter]

    def _property(self, position: int) -> tuple[CharacterClass, int]:
        found = _PROPERTY.match(self._text, position)
        name = (found[2] or found[3]) if found else ""
        name = _CATEGORIES.get(name, name)
        if found is None or not _SHORT_CATEGORY.fullmatch(name):
            shown = found[0] if found else self._text[position : position + 8]
            self._refuse(f"the property '{shown}' is not supported", position)
        inverse = (self._text[position + 1] == "P") != bool(found[1])
        key = f"{'P' if inverse else 'p'}{{{name}}}"
        if key not in self._read:
            known = category(name)
            # What lies beyond is left out either way.
            chosen = CharacterClass(known, known | _REST)
            self._read[key] = ~chosen if inverse else chosen
        return self._read[key], found.end()
