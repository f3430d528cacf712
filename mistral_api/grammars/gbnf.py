"""Expressions written out for llama.cpp: as GBNF, and as patterns of JSON schemas.

They are the languages of the installed engine, read in llama.cpp's src/llama-grammar.cpp (``parse_sequence``) and
common/json-schema-to-grammar.cpp (``_visit_pattern``):

- The converter takes a pattern only with ``^`` and ``$`` around it, and copies the text of its characters and classes
  into GBNF as it stands. So escapes are those of GBNF, where ``\\\\`` is a backslash of the *JSON text*.
- It knows ``. | ( ) [ ] * + ? {}`` and takes what has another meaning to a regular expression literally.
- A count above 2,000 is refused, or taken for any number, so larger ones are made of blocks of 1,000.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from mistral_api.grammars.characters import ALL, CharacterSet, from_ranges
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.expression import (
    EMPTY,
    Characters,
    Choice,
    Expression,
    Repeat,
    RuleReference,
    Sequence,
    characters,
    mapped,
    repeat,
    walk,
)
from mistral_api.grammars.time_limit import check_time

MOST_COUNT = 1_999
EMPTY_TEXT = '""'
_BLOCK = 1_000
MOST_BLOCKS = 100
MOST_CHARACTERS = 65_536
_NUL = from_ranges([(0, 0)])
_PATTERN_SYNTAX = frozenset("^$.[]()|{}*+?\\")
_CLASS_SYNTAX = frozenset('^[]\\-"')


@dataclass(frozen=True, slots=True)
class _Language:
    """How one of the languages is written.

    ``text``: a run of single characters. ``glue``, ``bar``: what stands between parts, and between alternatives.
    ``counts``: the short forms of repetitions of a group.
    """

    text: Callable[[str], str]
    glue: str
    bar: str
    counts: dict[tuple[int, int | None], str]


def _code(code: int) -> str:
    """Return a character in a class. What cannot be seen, and what classes have a meaning for, is escaped."""
    letter = chr(code)
    if letter not in _CLASS_SYNTAX and letter.isprintable() and letter != " ":
        return letter
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"


def _class(allowed: CharacterSet) -> str:
    """Return a class such as ``[a-z]``, or ``[^a-z]`` where that is shorter."""
    plain, inverse = f"[{_ranges(allowed)}]", f"[^{_ranges(~allowed)}]"
    return plain if len(plain) <= len(inverse) or allowed == ALL else inverse


def _ranges(allowed: CharacterSet) -> str:
    return "".join(_range(*each) for each in allowed.ranges)


def _range(low: int, high: int) -> str:
    if low == high:
        return _code(low)
    return f"{_code(low)}{'-' if high > low + 1 else ''}{_code(high)}"


def _pattern_text(text: str) -> str:
    return "".join(_pattern_letter(letter) for letter in text)


def _pattern_letter(letter: str) -> str:
    if letter in _PATTERN_SYNTAX:
        return "\\" + letter
    return letter if letter in " -" or letter in _CLASS_SYNTAX else _code(ord(letter))


def _gbnf_text(text: str) -> str:
    return '"' + "".join("\\" + each if each in '"\\' else _gbnf_letter(each) for each in text) + '"'


def _gbnf_letter(letter: str) -> str:
    return letter if letter == " " or letter in _CLASS_SYNTAX else _code(ord(letter))


_SHORT_COUNTS = {(0, None): "*", (1, None): "+", (0, 1): "?"}
# The converter puts what it repeats by a count into a rule of its own, which llama.cpp counts as one.
_RULE_COUNTS = {(0, None): "{0,}", (1, None): "{1,}", (0, 1): "{0,1}"}
_PATTERN = _Language(_pattern_text, "", "|", _RULE_COUNTS)
_GBNF = _Language(_gbnf_text, " ", " | ", _SHORT_COUNTS)


class _Writer:
    """Writes expressions in one language."""

    def __init__(self, language: _Language) -> None:
        self._language = language
        self._length = 0
        self._classes: dict[CharacterSet, str] = {}

    def write(self, expression: Expression) -> str:
        """Return an expression as it stands between parentheses."""
        check_time()
        if isinstance(expression, Choice):
            return self._language.bar.join(map(self.write, expression.options))
        parts = expression.parts if isinstance(expression, Sequence) else (expression,)
        written, text = list[str](), ""
        for part in parts:
            letter = _single(part)
            if letter is not None:
                text += letter
                continue
            written += [self._leaf(self._language.text(text))] if text else []
            written.append(self._part(part))
            text = ""
        written += [self._leaf(self._language.text(text))] if text else []
        return self._language.glue.join(written)

    def _leaf(self, text: str) -> str:
        """Return a text, classes among them, unless all of them together are too long, before they fill the memory."""
        self._length += len(text)
        _require_length(self._length)
        return text

    def _part(self, part: Expression) -> str:
        if isinstance(part, Repeat) and max(part.least, part.most or 0) > MOST_COUNT:
            return f"({self.write(_in_blocks(part))})"
        if isinstance(part, Repeat):
            return self._unit(part.part) + self._count(part, single=isinstance(part.part, Characters))
        return self._unit(part)

    def _unit(self, part: Expression) -> str:
        if isinstance(part, Characters):
            check_time()
            return self._leaf(self._class(part.allowed))
        if isinstance(part, RuleReference):
            return self._leaf(part.name)
        return f"({self.write(part)})"

    def _class(self, allowed: CharacterSet) -> str:
        if allowed not in self._classes:
            self._classes[allowed] = _class(allowed)
        return self._classes[allowed]

    def _count(self, part: Repeat, *, single: bool) -> str:
        bounds = part.least, part.most
        if bounds in _SHORT_COUNTS:
            return _SHORT_COUNTS[bounds] if single else self._language.counts[bounds]
        if part.least == part.most:
            return f"{{{part.least}}}"
        return f"{{{part.least},{'' if part.most is None else part.most}}}"


def _single(part: Expression) -> str | None:
    """Return the character that a part stands for; None for anything else."""
    if isinstance(part, Characters) and not part.allowed.is_wide():
        return chr(part.allowed.ranges[0][0])
    return None


def _in_blocks(part: Repeat) -> Expression:
    """Return a repetition by a large count in smaller ones. Raises Untranslatable above 100,000."""
    if max(part.least, part.most or 0) > MOST_BLOCKS * _BLOCK:
        raise Untranslatable(f"it repeats something more than {MOST_BLOCKS * _BLOCK} times")
    if any(isinstance(each, Repeat) and max(each.least, each.most or 0) > MOST_COUNT for each in walk(part.part)):
        raise Untranslatable(f"it repeats more than {MOST_COUNT} times what is repeated as often")
    further = None if part.most is None else part.most - part.least
    return Sequence((*_exact_blocks(part.part, part.least), *_optional_blocks(part.part, further)))


def _exact_blocks(part: Expression, count: int) -> list[Expression]:
    block = Repeat(part, _BLOCK, _BLOCK)
    blocks = [repeat(block, count // _BLOCK, count // _BLOCK), repeat(part, count % _BLOCK, count % _BLOCK)]
    return [each for each in blocks if each != EMPTY]


def _optional_blocks(part: Expression, count: int | None) -> list[Expression]:
    """Return ``x{0,count}``: some full blocks and less than one, or all full blocks and the rest."""
    if count is None or count <= MOST_COUNT:
        found = repeat(part, 0, count)
        return [found] if found != EMPTY else []
    block, full = Repeat(part, _BLOCK, _BLOCK), count // _BLOCK
    some = Sequence((repeat(block, 0, full - 1), repeat(part, 0, _BLOCK - 1)))
    rest = repeat(part, 0, count % _BLOCK)
    all_full = repeat(block, full, full)
    return [Choice((some, all_full if rest == EMPTY else Sequence((all_full, rest))))]


def write_pattern(expression: Expression) -> str:
    """Return a pattern of a JSON schema that means an expression to llama.cpp's converter: one of the JSON text.

    To everybody else it means the same of the decoded string. Raises Untranslatable where it is too long, or repeats
    something too often.
    """
    written = _Writer(_PATTERN).write(expression)
    return _bounded(f"^({written})$" if isinstance(expression, Choice) else f"^{written}$")


def write_grammar(rules: dict[str, Expression]) -> str:
    """Return a grammar of rules, the first of which is named root.

    Raises Untranslatable where it is too long, or repeats something too often.
    """
    writer, written, names = _Writer(_GBNF), list[str](), set(rules)
    todo = list(rules.items())[::-1]
    while todo:
        name, body = todo.pop()
        counted: dict[Expression, str] = {}
        body = _with_counted_rules(body, name, counted, names)
        todo += [(rule, part) for part, rule in counted.items()]
        # Behind an empty rule llama.cpp would read on in the next line.
        written.append(f"{name} ::= {writer.write(body) or EMPTY_TEXT}\n")
    return _bounded("".join(written))


def _with_counted_rules(
    expression: Expression, name: str, counted: dict[Expression, str], names: set[str]
) -> Expression:
    """Return an expression with what it repeats by a count as rules of its own, which ``counted`` gets.

    llama.cpp multiplies the counts of groups within each other, and refuses more than 2,000.
    """
    if isinstance(expression, Repeat) and _is_to_count(expression):
        rule = counted.get(expression.part) or _unused(name, names)
        counted[expression.part] = rule
        return Repeat(RuleReference(rule), expression.least, expression.most)
    return mapped(expression, lambda each: _with_counted_rules(each, name, counted, names))


def _unused(name: str, names: set[str]) -> str:
    """Return a name for a part of a rule that no rule has yet."""
    found = next(each for number in itertools.count(1) if (each := f"{name}-{number}") not in names)
    names.add(found)
    return found


def _is_to_count(expression: Repeat) -> bool:
    """Return whether it repeats more than a class or a rule, and has a count, or something in it has one."""
    counts = ((each.least, each.most) for each in walk(expression) if isinstance(each, Repeat))
    return not isinstance(expression.part, Characters | RuleReference) and any(
        each not in _SHORT_COUNTS for each in counts
    )


def _bounded(text: str) -> str:
    _require_length(len(text))
    return text


def _require_length(length: int) -> None:
    if length > MOST_CHARACTERS:
        raise Untranslatable(f"it takes llama.cpp a constraint of more than {MOST_CHARACTERS} characters")


def without_nul(expression: Expression) -> Expression:
    """Return an expression that never reads the character NUL, which ends a text for llama.cpp."""
    if isinstance(expression, Characters):
        return characters(expression.allowed - _NUL) if 0 in expression.allowed else expression
    return mapped(expression, without_nul)
