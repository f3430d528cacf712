"""A parser of regular expressions: what JavaScript (ECMA-262), Python and Rust have in common, and most of the rest.

Where they give one text different meanings, it is refused, or has the meaning that all of them allow (``characters``).
Whether a repetition is greedy makes no difference to what matches. Groups capture nothing, since nothing reads it.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NoReturn

from mistral_api.grammars.characters import (
    ALL,
    LINE_ENDS,
    LINE_FEED,
    CharacterClass,
    digits,
    ecma_digits,
    ecma_spaces,
    ecma_word,
    exactly,
    of,
    spaces,
    unicode_word,
    word,
)
from mistral_api.grammars.class_parser import CLASS_LETTERS, ClassReader
from mistral_api.grammars.errors import InvalidSyntax, Untranslatable
from mistral_api.grammars.escapes import EscapeReader
from mistral_api.grammars.expression import (
    EMPTY,
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
    repeat,
    sequence,
)
from mistral_api.grammars.time_limit import check_time

MOST_LEVELS = 60
_MOST_COUNT = 100_000
_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_LOOKS = {"?=": (True, False), "?!": (True, True), "?<=": (False, False), "?<!": (False, True)}
_GROUP = re.compile(r"\((\?(?:P?<[^\W\d][\w$]*>|[:>]|<?[=!]|#|P=|P>|[a-zA-Z^-]+[:)]|[|&(R+\d]))?")
_FLAGS = re.compile(r"\?([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)])")
_KNOWN_FLAGS = frozenset("imsxau")


class Dialect(Enum):
    """Whose regular expressions are read: JavaScript's in JSON schemas, those of Python and Rust in texts.

    The dot of JavaScript leaves out more, and its words have no letters beyond ASCII. Of the patterns of JSON schemas
    only what all dialects match is meant, since nobody knows what reads the value; ``ECMASCRIPT`` means what
    JavaScript matches.
    """

    JSON_SCHEMA = "JSON schema"
    ECMASCRIPT = "ECMAScript"
    TEXT = "text"


_CLASSES = {
    Dialect.JSON_SCHEMA: {"d": digits, "w": word, "s": spaces},
    Dialect.ECMASCRIPT: {"d": ecma_digits, "w": ecma_word, "s": ecma_spaces},
    Dialect.TEXT: {"d": digits, "w": unicode_word, "s": spaces},
}


def parse_pattern(pattern: str, dialect: Dialect, flags: str = "") -> Expression:
    """Return what a regular expression means. ``flags``: letters as in ``(?i)``. Raises Untranslatable."""
    return _PatternParser(pattern, dialect, flags).parse()


class _PatternParser:
    """Reads one pattern from its beginning to its end."""

    def __init__(self, pattern: str, dialect: Dialect, flags: str) -> None:
        self._text = pattern
        self._position = 0
        self._dialect = dialect
        self._flags = frozenset(flags)
        # Whether what is read must not match: a dialect that takes more for a class then excludes more.
        self._inverted = False
        self._escapes = EscapeReader(pattern)
        self._word = _CLASSES[dialect]["w"]
        self._classes = ClassReader(pattern, self._escapes, _CLASSES[dialect])

    def parse(self) -> Expression:
        """Return the expression of the whole pattern."""
        found = self._alternatives(0)
        if self._position < len(self._text):
            self._reject("the ')' closes nothing")
        return found

    def _refuse(self, reason: str, start: int | None = None) -> NoReturn:
        place = self._position if start is None else start
        raise Untranslatable(f"{reason} (at character {place + 1})")

    def _reject(self, reason: str, start: int | None = None) -> NoReturn:
        place = self._position if start is None else start
        raise InvalidSyntax(f"{reason} (at character {place + 1})")

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _alternatives(self, level: int) -> Expression:
        """Read as far as the closing parenthesis or the end. Flags that are set within hold as far as that."""
        if level > MOST_LEVELS:
            self._refuse(f"groups are nested deeper than {MOST_LEVELS} levels")
        flags, options = self._flags, [self._sequence(level)]
        while self._peek() == "|":
            self._position += 1
            options.append(self._sequence(level))
        self._flags = flags
        return choice(options)

    def _sequence(self, level: int) -> Expression:
        parts: list[Expression] = []
        while self._skip_blanks() and self._peek() not in "|)":
            start = self._position
            part = self._atom(level)
            parts.append(self._quantified(part, start))
        return sequence(parts)

    def _skip_blanks(self) -> bool:
        """Skip what a verbose expression ignores. Return whether there is more."""
        while "x" in self._flags and (letter := self._peek()) and (letter.isspace() or letter == "#"):
            end = self._text.find("\n", self._position) if letter == "#" else self._position
            self._position = len(self._text) if end < 0 else end + 1
        return self._position < len(self._text)

    def _atom(self, level: int) -> Expression:
        check_time()
        letter = self._peek()
        if letter == "(":
            return self._group(level)
        if letter == "[":
            found, self._position = self._classes.read(self._position, ignore_case="i" in self._flags)
            return self._one_of(found)
        if letter == "\\":
            return self._escape()
        if letter in "*+?" or (letter == "{" and _COUNT.match(self._text, self._position)):
            self._reject(f"nothing stands before '{letter}' that it could repeat")
        self._position += 1
        if letter in ".^$":
            return self._dot() if letter == "." else self._anchor(letter)
        return self._letter(exactly(of(letter)))

    def _one_of(self, found: CharacterClass) -> Expression:
        return characters(found.most if self._inverted else found.least)

    def _letter(self, found: CharacterClass) -> Expression:
        return self._one_of(self._classes.without_case(found) if "i" in self._flags else found)

    def _dot(self) -> Expression:
        if "s" in self._flags:
            return characters(ALL)
        most = ~LINE_ENDS if self._dialect is Dialect.ECMASCRIPT else ~LINE_FEED
        return self._one_of(CharacterClass(~LINE_FEED if self._dialect is Dialect.TEXT else ~LINE_ENDS, most))

    def _anchor(self, letter: str) -> Expression:
        """Return what ``^`` or ``$`` means. To Python ``$`` is also the place before a line feed at the end."""
        if "m" in self._flags:
            edge: Expression = Start() if letter == "^" else End()
            is_ecma = self._dialect is Dialect.ECMASCRIPT
            line_end = self._one_of(CharacterClass(LINE_ENDS if is_ecma else LINE_FEED, LINE_ENDS))
            return Choice((edge, Look(line_end, ahead=letter == "$", negative=False)))
        if letter == "^" or not self._inverted or self._dialect is Dialect.ECMASCRIPT:
            return Start() if letter == "^" else End()
        return Look(sequence([Repeat(Characters(LINE_FEED), 0, 1), End()]), ahead=True, negative=False)

    def _escape(self) -> Expression:
        letter = self._text[self._position + 1 : self._position + 2]
        if letter and letter in CLASS_LETTERS:
            found, self._position = self._classes.escape(self._position)
            return self._letter(found)
        if letter and letter in "AZzbB":
            self._position += 2
            return self._place(letter)
        code, self._position = self._escapes.read(self._position)
        return self._letter(exactly(code))

    def _place(self, letter: str) -> Expression:
        """Return ``\\A``, ``\\z`` (in Python ``\\Z``), ``\\b`` or ``\\B``."""
        if letter in "AZz":
            return Start() if letter == "A" else End()
        inside, outside = self._one_of(self._word()), self._one_of(~self._word())
        behind, ahead = Look(inside, ahead=False, negative=False), Look(inside, ahead=True, negative=False)
        not_behind, not_ahead = Look(outside, ahead=False, negative=False), Look(outside, ahead=True, negative=False)
        pairs: tuple[tuple[Expression, Expression], ...]
        if letter == "b":
            pairs = ((behind, not_ahead), (behind, End()), (not_behind, ahead), (Start(), ahead))
        else:
            pairs = ((behind, ahead), (not_behind, not_ahead), (not_behind, End()), (Start(), not_ahead))
            # To some the empty text has a \B, to others none.
            pairs += ((Start(), End()),) * (self._inverted or self._dialect is Dialect.ECMASCRIPT)
        return Choice(tuple(Sequence(pair) for pair in pairs))

    def _group(self, level: int) -> Expression:
        start, opening = self._position, _GROUP.match(self._text, self._position)
        kind = opening[1] if opening else None
        if opening is None or self._text[opening.end() - 1 : opening.end() + 1] == "(?":
            self._refuse(f"the group '{self._text[start : start + 4]}' is not supported")
        if kind == "?#":
            return self._comment()
        if kind and kind[1] not in ":<P>=!":
            return self._flag_group(kind, level)
        if kind and (kind in ("?P=", "?P>") or kind[1] in "|&(R+"):
            self._refuse(f"the reference '{self._text[start : start + 8]}' to another group is not supported")
        self._position = opening.end()
        if kind in _LOOKS:
            return self._look(*_LOOKS[kind], level, start)
        inner = self._closed(level, start)
        return self._atomic(inner, start) if kind == "?>" else inner

    def _look(self, ahead: bool, negative: bool, level: int, start: int) -> Expression:
        self._inverted ^= negative
        inner = self._closed(level, start)
        self._inverted ^= negative
        return Look(inner, ahead, negative)

    def _closed(self, level: int, start: int) -> Expression:
        """Read what stands in a group, and its closing parenthesis."""
        inner = self._alternatives(level + 1)
        if self._peek() != ")":
            self._reject("the '(' is not closed", start)
        self._position += 1
        return inner

    def _comment(self) -> Expression:
        end = self._text.find(")", self._position)
        if end < 0:
            self._refuse("the comment is not closed")
        self._position = end + 1
        return EMPTY

    def _flag_group(self, kind: str, level: int) -> Expression:
        """Read ``(?i)``, which holds as far as the group around it, or ``(?i:...)``."""
        start, found = self._position, _FLAGS.fullmatch(kind)
        if found is None or not _KNOWN_FLAGS.issuperset(found[1] + (found[2] or "")):
            self._refuse(f"the group '({kind}' is not supported")
        self._position += 1 + len(kind)
        before = self._flags
        self._flags = (before | frozenset(found[1])) - frozenset(found[2] or "")
        if found[3] == ")":
            return EMPTY
        inner = self._closed(level, start)
        self._flags = before
        return inner

    def _quantified(self, part: Expression, start: int) -> Expression:
        bounds = self._bounds()
        if bounds is None:
            return part
        most = bounds[1]
        if most is not None and bounds[0] > most:
            self._reject(f"'{self._text[start : self._position]}' repeats at least more often than at most", start)
        possessive = self._peek() == "+"
        self._position += possessive or self._peek() == "?"
        if self._bounds() is not None:
            self._refuse("a repetition is repeated", start)
        repeated = Repeat(part, *bounds) if isinstance(part, Look | Start | End) else repeat(part, *bounds)
        return self._atomic(repeated, start) if possessive else repeated

    def _bounds(self) -> tuple[int, int | None] | None:
        """Read ``*``, ``+``, ``?`` or a count; None where there is none."""
        self._skip_blanks()
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self._peek())
        if simple is not None:
            self._position += 1
            return simple
        found = _COUNT.match(self._text, self._position)
        return None if found is None or found[0] in ("{}", "{,}") else self._count(found)

    def _count(self, found: re.Match[str]) -> tuple[int, int | None]:
        if not found[1] and self._dialect is not Dialect.TEXT:
            self._refuse(f"'{found[0]}' is a count to some, and text to others")
        if max(len(found[1]), len(found[3])) > 6 or max(int(found[1] or 0), int(found[3] or 0)) > _MOST_COUNT:
            self._refuse(f"'{found[0]}' repeats too often")
        self._position = found.end()
        least = int(found[1] or 0)
        return least, (int(found[3]) if found[3] else None) if found[2] else least

    def _atomic(self, inner: Expression, start: int) -> Expression:
        """Return what a group means that gives nothing back, where that can be said: it takes all that it can."""
        if isinstance(inner, Characters) or all(isinstance(each, Characters) for each in _parts(inner)):
            return inner
        if not isinstance(inner, Repeat) or not isinstance(inner.part, Characters):
            self._refuse("what gives nothing back is supported for one character or class only", start)
        ends = Look(inner.part, ahead=True, negative=True)
        if inner.most is None:
            return sequence([inner, ends])
        if inner.least == inner.most:
            return inner
        return choice([sequence([repeat(inner.part, inner.least, inner.most - 1), ends]), _exactly(inner)])


def _exactly(inner: Repeat) -> Expression:
    most = inner.most or 0
    return repeat(inner.part, most, most)


def _parts(inner: Expression) -> tuple[Expression, ...]:
    return inner.parts if isinstance(inner, Sequence) else (inner,)
