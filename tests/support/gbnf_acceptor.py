"""Whether a text fits a grammar in GBNF, as llama.cpp reads it (src/llama-grammar.cpp)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

# Where a text may go on behind an element that begins at a position.
_Element: TypeAlias = Callable[[str, int], frozenset[int]]
_CHARACTER = re.compile(
    r'\\x([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|\\([trn\\"\[\]-])|([^\\])', re.DOTALL
)
_CONTROLS = {"t": "\t", "r": "\r", "n": "\n"}
_COUNT = re.compile(r"\{\s*(\d+)\s*(,?)\s*(\d*)\s*\}")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_BLANK = re.compile(r"[ \t]*")
_BLANKS = re.compile(r"\s*")


class GbnfGrammar:
    """The rules of a grammar. A syntax error is an AssertionError."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._rules: dict[str, _Element] = {}
        self._known: dict[tuple[str, int], frozenset[int]] = {}
        while self._position < len(text):
            self._rule()

    def accepts(self, text: str, root: str = "root") -> bool:
        """Return whether a text fits a rule as a whole."""
        self._known.clear()
        return len(text) in self._rules[root](text, 0)

    def _skip(self, blank: re.Pattern[str] = _BLANK) -> None:
        found = blank.match(self._text, self._position)
        self._position = found.end() if found else self._position

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _rule(self) -> None:
        name = self._match(_NAME)[0]
        self._skip()
        assert self._text.startswith("::=", self._position), self._text[self._position : self._position + 40]
        self._position += 3
        self._skip(_BLANKS)
        self._rules[name] = self._alternatives(_BLANK)
        assert self._peek() in ("", "\n"), self._text[self._position : self._position + 40]
        self._skip(_BLANKS)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._position)
        assert found is not None, self._text[self._position : self._position + 40]
        self._position = found.end()
        return found

    def _alternatives(self, blank: re.Pattern[str]) -> _Element:
        options = [self._sequence(blank)]
        while self._peek() == "|":
            self._position += 1
            self._skip(_BLANKS)
            options.append(self._sequence(blank))
        return lambda text, at: frozenset().union(*(option(text, at) for option in options))

    def _sequence(self, blank: re.Pattern[str]) -> _Element:
        parts: list[_Element] = []
        while self._peek() not in ("", "|", ")", "\n"):
            if self._peek() in "*+?{":
                parts[-1] = self._repeated(parts[-1])
            else:
                parts.append(self._element())
            self._skip(blank)
        return _sequence(parts)

    def _element(self) -> _Element:
        letter = self._peek()
        if letter == '"':
            return self._literal()
        if letter == "[":
            return self._class()
        if letter == "(":
            self._position += 1
            self._skip(_BLANKS)
            inner = self._alternatives(_BLANKS)
            assert self._peek() == ")"
            self._position += 1
            return inner
        return self._reference(self._match(_NAME)[0])

    def _reference(self, name: str) -> _Element:
        def ends(text: str, at: int) -> frozenset[int]:
            if (name, at) not in self._known:
                self._known[name, at] = self._rules[name](text, at)
            return self._known[name, at]

        return ends

    def _literal(self) -> _Element:
        self._position += 1
        letters = ""
        while self._peek() != '"':
            letters += self._character()
        self._position += 1
        return lambda text, at: frozenset([at + len(letters)] if text.startswith(letters, at) else [])

    def _class(self) -> _Element:
        self._position += 1
        inverse = self._peek() == "^"
        self._position += inverse
        ranges: list[tuple[str, str]] = []
        while self._peek() != "]":
            low = high = self._character()
            if self._peek() == "-" and self._text[self._position + 1] != "]":
                self._position += 1
                high = self._character()
            ranges.append((low, high))
        self._position += 1
        return lambda text, at: frozenset(
            [at + 1] if at < len(text) and any(low <= text[at] <= high for low, high in ranges) != inverse else []
        )

    def _character(self) -> str:
        found = self._match(_CHARACTER)
        code = found[1] or found[2] or found[3]
        return chr(int(code, 16)) if code else _CONTROLS.get(found[4], found[4]) or found[5]

    def _repeated(self, part: _Element) -> _Element:
        letter = self._peek()
        if letter != "{":
            self._position += 1
            return _repeat(part, *{"*": (0, None), "+": (1, None), "?": (0, 1)}[letter])
        found = self._match(_COUNT)
        least = int(found[1])
        most = least if not found[2] else int(found[3]) if found[3] else None
        assert max(least, most or 0) <= 2000, "llama.cpp takes this for no bound"
        return _repeat(part, least, most)


def _sequence(parts: list[_Element]) -> _Element:
    def ends(text: str, at: int) -> frozenset[int]:
        found = frozenset([at])
        for part in parts:
            found = frozenset().union(*(part(text, each) for each in found))
        return found

    return ends


def _repeat(part: _Element, least: int, most: int | None) -> _Element:
    def ends(text: str, at: int) -> frozenset[int]:
        current, found, rounds = frozenset([at]), set[int](), 0
        while current and (most is None or rounds <= most):
            if rounds >= least:
                if current <= found:
                    break
                found |= current
            current = frozenset().union(*(part(text, each) for each in current))
            rounds += 1
        return frozenset(found)

    return ends
