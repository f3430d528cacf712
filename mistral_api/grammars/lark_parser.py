"""A parser of grammars in lark, as far as OpenAI's custom tools take them: what llguidance reads (its docs/syntax.md).

Rules and terminals become expressions of the same kind. Priorities and the names of alternatives (``->``) make no
difference to which texts fit. The package ``lark`` is not used: its loader of grammars is no public interface, and
reads the files that a grammar imports.
"""

from __future__ import annotations

import re
from typing import NoReturn

from mistral_api.grammars.characters import exactly, from_ranges, of
from mistral_api.grammars.errors import InvalidSyntax, Untranslatable
from mistral_api.grammars.expression import (
    EMPTY,
    Characters,
    Expression,
    RuleReference,
    characters,
    choice,
    has_assertions,
    repeat,
    sequence,
)
from mistral_api.grammars.lark_common import COMMON_TERMINALS
from mistral_api.grammars.lark_tokens import Token, read_tokens
from mistral_api.grammars.pattern_parser import Dialect, parse_pattern
from mistral_api.grammars.rules import inlined, used_rules
from mistral_api.grammars.time_limit import check_time

MOST_RULES = 500
_MOST_LEVELS = 60
_MOST_COUNT = 100_000
IGNORED = "ignored text"
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}


def parse_lark(text: str) -> dict[str, Expression]:
    """Return the rules and terminals of a grammar by name.

    What ``%ignore`` names is a rule named IGNORED, to which each rule refers behind each of its terminals. Raises
    Untranslatable.
    """
    return _LarkParser(read_tokens(text)).parse()


def is_terminal(name: str) -> bool:
    """Return whether a name is that of a terminal: those are upper case."""
    return name.lstrip("_")[:1].isupper()


class _LarkParser:
    """Reads the tokens of one grammar."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self._rules: dict[str, Expression] = {}
        self._ignored: list[Expression] = []
        self._has_ignored = any(token.text == "%ignore" for token in tokens)
        # Terminals are read as they stand; what is ignored may follow each terminal of a rule.
        self._in_rule = False

    def parse(self) -> dict[str, Expression]:
        """Return all rules and terminals."""
        while self._position < len(self._tokens):
            token = self._next()
            if token.kind == "command":
                self._command(token)
            elif token.kind == "name":
                self._definition(token)
            elif token.kind != "line":
                self._reject(token)
        if self._has_ignored:
            # With the terminals that it refers to put into it, no loop repeats another.
            used = used_rules({**self._rules, IGNORED: choice(self._ignored)}, IGNORED)
            self._rules[IGNORED] = repeat(inlined(used))
        return self._rules

    def _peek(self) -> Token:
        return self._tokens[min(self._position, len(self._tokens) - 1)]

    def _next(self) -> Token:
        token = self._peek()
        self._position += 1
        check_time()
        return token

    def _takes(self, text: str) -> bool:
        """Go on behind the next token where it is this mark. Return whether it is."""
        found = self._peek().text == text and self._peek().kind == "mark"
        self._position += found
        return found

    def _need(self, kind: str, text: str = "") -> Token:
        token = self._next()
        if token.kind != kind or (text and token.text != text):
            self._refuse(token)
        return token

    def _refuse(self, token: Token) -> NoReturn:
        shown = f"'{token.text}'" if token.text.strip() else "the end of the line"
        raise Untranslatable(f"{shown} in line {token.line} is not expected there, or not supported")

    def _reject(self, token: Token) -> NoReturn:
        shown = f"'{token.text}'" if token.text.strip() else "the end of the line"
        raise InvalidSyntax(f"{shown} in line {token.line} is not expected there")

    def _definition(self, token: Token) -> None:
        name = token.text.lstrip("!?")
        if self._peek().text in ("{", "["):
            raise Untranslatable(f"the template or the options of '{name}' in line {token.line} are not supported")
        if self._takes("."):
            self._need("number")
        if not self._takes(":"):
            self._reject(self._peek())
        if name in self._rules:
            raise InvalidSyntax(f"'{name}' is defined twice, in line {token.line} again")
        if len(self._rules) >= MOST_RULES:
            raise Untranslatable(f"it has more than {MOST_RULES} rules and terminals")
        self._in_rule = not is_terminal(name)
        self._rules[name] = self._alternatives(0)
        self._need("line")

    def _command(self, token: Token) -> None:
        if token.text == "%ignore":
            self._in_rule = False
            self._ignored.append(self._alternatives(0))
        elif token.text == "%import":
            self._import()
        else:
            raise Untranslatable(f"'{token.text}' in line {token.line} is not supported")
        self._need("line")

    def _import(self) -> None:
        source = self._next()
        if source.text != "common":
            raise Untranslatable(f"the import in line {source.line} is not supported: only 'common' can be imported")
        if self._takes("."):
            name = self._need("name")
            alias = self._need("name").text if self._takes("->") else name.text
            self._add_common(name, alias)
            return
        self._need("mark", "(")
        while not self._takes(")"):
            name = self._need("name")
            self._add_common(name, name.text)
            self._takes(",")

    def _add_common(self, name: Token, alias: str) -> None:
        pattern = COMMON_TERMINALS.get(name.text)
        if pattern is None:
            raise Untranslatable(f"'common' has no '{name.text}' (line {name.line})")
        self._rules[alias] = parse_pattern(pattern, Dialect.TEXT)

    def _alternatives(self, level: int) -> Expression:
        if level > _MOST_LEVELS:
            raise Untranslatable(f"groups are nested deeper than {_MOST_LEVELS} levels")
        options = [self._sequence(level)]
        while self._takes("|"):
            options.append(self._sequence(level))
        return choice(options)

    def _sequence(self, level: int) -> Expression:
        parts: list[Expression] = []
        while self._peek().kind != "line" and self._peek().text not in ("|", ")", "]", "->"):
            parts.append(self._repeated(self._atom(level)))
        if self._takes("->"):
            self._need("name")
        return sequence(parts)

    def _repeated(self, part: Expression) -> Expression:
        for mark, bounds in (("?", (0, 1)), ("*", (0, None)), ("+", (1, None))):
            if self._takes(mark):
                return repeat(part, *bounds)
        if self._takes("~"):
            least = self._count()
            return repeat(part, least, self._most(self._count(), least) if self._takes("..") else least)
        return self._counted(part) if self._takes("{") else part

    def _counted(self, part: Expression) -> Expression:
        """Read ``{2,3}``, which llguidance has besides ``~2..3``."""
        least = self._count() if self._peek().kind == "number" else 0
        most: int | None = least
        if self._takes(","):
            most = self._most(self._count(), least) if self._peek().kind == "number" else None
        self._need("mark", "}")
        return repeat(part, least, most)

    def _count(self) -> int:
        token = self._need("number")
        if not token.text.isdecimal() or len(token.text) > 6 or int(token.text) > _MOST_COUNT:
            self._refuse(token)
        return int(token.text)

    def _most(self, most: int, least: int) -> int:
        if most < least:
            line = self._peek().line
            raise InvalidSyntax(f"something in line {line} is repeated at least more often than at most")
        return most

    def _atom(self, level: int) -> Expression:
        token = self._next()
        if token.kind == "string":
            return self._terminal(self._string(token))
        if token.kind == "pattern":
            return self._terminal(self._pattern(token))
        if token.kind == "name" and token.text[0] not in "!?":
            return self._reference(token)
        if token.text == "(" and token.kind == "mark":
            return self._closed(level, ")")
        if token.text == "[" and token.kind == "mark":
            return repeat(self._closed(level, "]"), 0, 1)
        return self._reject(token) if token.text in ("?", "*", "+", ":") else self._refuse(token)

    def _closed(self, level: int, end: str) -> Expression:
        inner = self._alternatives(level + 1)
        if not self._takes(end):
            self._reject(self._peek())
        return inner

    def _terminal(self, expression: Expression) -> Expression:
        if not self._in_rule or not self._has_ignored or expression == EMPTY:
            return expression
        return sequence([expression, RuleReference(IGNORED)])

    def _reference(self, token: Token) -> Expression:
        if self._peek().text == "{" and self._tokens[self._position + 1].kind in ("name", "string", "pattern"):
            raise Untranslatable(f"the template '{token.text}' in line {token.line} is not supported")
        found = RuleReference(token.text)
        return self._terminal(found) if is_terminal(token.text) else found

    def _string(self, token: Token) -> Expression:
        text = _unescaped(token.text[1 : token.text.rindex('"')])
        if self._takes(".."):
            last = self._need("string")
            end = _unescaped(last.text[1 : last.text.rindex('"')])
            if len(text) != 1 or len(end) != 1:
                self._refuse(last)
            if end < text:
                shown = f"{token.text}..{last.text}"
                raise InvalidSyntax(f"the range '{shown}' in line {token.line} is out of order")
            return Characters(from_ranges([(ord(text), ord(end))]))
        letters = [exactly(of(letter)) for letter in text]
        ignore_case = token.text.endswith("i")
        return sequence(characters((each.without_case() if ignore_case else each).least) for each in letters)

    def _pattern(self, token: Token) -> Expression:
        end = token.text.rindex("/")
        try:
            found = parse_pattern(token.text[1:end], Dialect.TEXT, token.text[end + 1 :])
        except Untranslatable as error:
            raise type(error)(f"in '{token.text[:40]}' in line {token.line} {error.reason}") from error
        if has_assertions(found):
            what = "a condition on a place, such as '^', '\\b' or a lookahead, is not supported"
            raise Untranslatable(f"in '{token.text[:40]}' in line {token.line} {what}")
        return found


def _unescaped(text: str) -> str:
    """Return the text of a string. A backslash before a letter without a meaning stays."""
    return _ESCAPE.sub(_unescape, text)


def _unescape(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    if code:
        number = int(code, 16)
        if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise Untranslatable(f"'{found[0]}' is no character")
        return chr(number)
    return found[4] if found[4] in '"\\/' else _CONTROLS.get(found[4], found[0])
