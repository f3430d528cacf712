"""Escapes of single characters in regular expressions."""

from __future__ import annotations

import re
from typing import NoReturn

from mistral_api.grammars.characters import CharacterSet, from_ranges
from mistral_api.grammars.errors import InvalidSyntax, Untranslatable

_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a"}
_CODE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]{1,8})\}|u\{([0-9A-Fa-f]{1,8})\}|U([0-9A-Fa-f]{8})|u([0-9A-Fa-f]{4}))"
)
_SECOND_HALF = re.compile(r"\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"\\c([A-Za-z])")


class EscapeReader:
    """Reads the escapes of one pattern."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern

    def read(self, position: int) -> tuple[CharacterSet, int]:
        """Return the character that an escape stands for, and where the text goes on. Raises Untranslatable."""
        letter = self._text[position + 1 : position + 2]
        if letter in _CONTROLS:
            return _one(ord(_CONTROLS[letter])), position + 2
        found = _CODE.match(self._text, position)
        if found is not None:
            return self._code(found)
        if letter == "0" and not self._text[position + 2 : position + 3].isdigit():
            return _one(0), position + 2
        if letter == "c" and (control := _CONTROL.match(self._text, position)):
            return _one(ord(control[1].upper()) - ord("@")), position + 3
        if not letter or letter.isalnum():
            self._refuse(letter, position)
        return _one(ord(letter)), position + 2

    def _code(self, found: re.Match[str]) -> tuple[CharacterSet, int]:
        digits = next(each for each in found.groups() if each)
        code, end = int(digits, 16), found.end()
        second = _SECOND_HALF.match(self._text, end) if found[5] and 0xD800 <= code <= 0xDBFF else None
        if second is not None:
            code, end = 0x10000 + ((code - 0xD800) << 10) + int(second[1], 16) - 0xDC00, second.end()
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise Untranslatable(f"'{found[0]}' is no character (at character {found.start() + 1})")
        return _one(code), end

    def _refuse(self, letter: str, position: int) -> NoReturn:
        what = f"the escape '\\{letter}' is not supported"
        if not letter:
            raise InvalidSyntax(f"a backslash at the end escapes nothing (at character {position + 1})")
        if letter.isdigit() or letter == "k":
            what = f"'\\{letter}', a reference to what a group has matched, is not supported"
        raise Untranslatable(f"{what} (at character {position + 1})")


def _one(code: int) -> CharacterSet:
    return from_ranges([(code, code)])
