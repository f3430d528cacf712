"""How ambiguous the repetitions of a regular expression or a grammar in GBNF are: that makes llama.cpp's matching slow.

llama.cpp (src/llama-grammar.cpp, ``llama_grammar_reject_candidates``) reads each token of the vocabulary along every
way in which the grammar can read it. Where two repetitions follow each other and both take a letter, such as
``[a-z]* [a-z]*``, each letter may belong to either. ``k`` of them read a token of ``n`` letters in about ``n`` over
``k`` ways. With twelve a token costs a tenth of a second, with thirty minutes (measured on its server).

So this module counts the longest run of repetitions that may take the same character. Nothing between them ends a run
unless it must be there and takes other characters. The syntax of both languages is read by one parser, as far as it
matters: characters, classes, groups, alternatives, names of rules and counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# More levels of groups are left to the bounds on depth; what lies deeper counts as any text.
MOST_LEVELS = 100
# A count that leaves so much open is as ambiguous as an endless repetition.
_OPEN_COUNT = 8
# Sets of characters are bits: one for each ASCII character, and one for all others.
_OTHERS = 128
ANY = (1 << (_OTHERS + 1)) - 1


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """What a part of an expression can read, and how ambiguously.

    ``first``: the set of characters that it may begin with. ``optional``: whether it may take none. ``loops``: the most
    repetitions within it that may take the same character, one after the other. ``nested``: whether one of them repeats
    another. ``copies``: how often its smallest part is repeated at most, all finite counts multiplied.
    """

    first: int = 0
    optional: bool = True
    loops: int = 0
    nested: bool = False
    copies: int = 1


# Each is an element that is looked at once: about 0.1 s.
MOST_STEPS = 100_000
# So many rounds of a group are looked at: more change nothing, since their loops are too many already.
MOST_ROUNDS = 64


@dataclass(slots=True)
class _Element:
    """A character class, a group or the name of a rule, and how often it is repeated (``most`` None: without end)."""

    characters: int = 0
    group: Alternatives | None = None
    rule: str | None = None
    least: int = 1
    most: int | None = 1
    # Where a group stands in the text.
    start: int = 0
    end: int = 0

    @property
    def is_loop(self) -> bool:
        return self.most is None or self.most - self.least >= _OPEN_COUNT


@dataclass(slots=True)
class Alternatives:
    """Sequences of elements, of which one is read."""

    sequences: list[list[_Element]] = field(default_factory=lambda: [[]])


def _bits(characters: Iterable[str]) -> int:
    mask = 0
    for each in characters:
        mask |= 1 << min(ord(each), _OTHERS)
    return mask


def _bits_between(first: str, last: str) -> int:
    low, high = min(ord(first), _OTHERS), min(ord(last), _OTHERS)
    return ((1 << (high + 1)) - 1) & ~((1 << low) - 1) if low <= high else 0


_DIGITS = _bits("0123456789")
_WORD = _DIGITS | _bits_between("a", "z") | _bits_between("A", "Z") | _bits("_")
_SPACE = _bits(" \t\n\r\f\v") | 1 << _OTHERS
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CLASSES |= {name.upper(): ANY & ~mask | 1 << _OTHERS for name, mask in _CLASSES.items()}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}

_COUNT = re.compile(r"\{\s*(\d{0,9})\s*(,?)\s*(\d{0,9})\s*\}")
_CODE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_GROUP_START = re.compile(r"\((?:\?(?:[:=!>]|<[=!]|P?<[^>]*>))?")
_BLANKS = re.compile(r"(?:[ \t]|#[^\n]*)*")
_ALL_BLANKS = re.compile(r"(?:\s|#[^\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = re.compile(r"!?<[^>]*>")
_DEFINITION = re.compile(r"([A-Za-z0-9_-]+)[ \t]*::=")


class _Parser:
    """Reads alternatives from a text. It never fails: what it does not know counts as one character."""

    def __init__(self, text: str, *, grammar: bool) -> None:
        self._text = text
        self._grammar = grammar
        self.position = 0

    def alternatives(self, level: int = 0) -> Alternatives:
        """Read as far as the closing parenthesis, the end of the rule, or the end of the text."""
        found = Alternatives()
        while (letter := self._next(level)) not in ("", ")"):
            if self._grammar and not level and _DEFINITION.match(self._text, self.position):
                break
            if letter == "|":
                self.position += 1
                found.sequences.append([])
            else:
                self._add_element(found.sequences[-1], letter, level)
        return found

    def _next(self, level: int) -> str:
        """Skip what separates elements in a grammar, and return the next character."""
        if self._grammar:
            self.skip_blanks(lines=True)
        elif level == 0 and self._text[self.position : self.position + 1] == ")":
            self.position += 1  # one too many
            return self._next(level)
        return self._text[self.position : self.position + 1]

    def skip_blanks(self, *, lines: bool) -> None:
        """Skip blanks and comments, and with ``lines`` the ends of lines."""
        found = (_ALL_BLANKS if lines else _BLANKS).match(self._text, self.position)
        self.position = found.end() if found else self.position

    def _add_element(self, sequence: list[_Element], letter: str, level: int) -> None:
        if letter in "*+?{" and sequence and self._repeat(sequence[-1]):
            return
        if self._grammar and letter == '"':
            sequence += self._literal()
        elif letter == "(":
            sequence.append(self._group(level))
        else:
            sequence.append(self._atom(letter))

    def _group(self, level: int) -> _Element:
        start = self.position
        opening = _GROUP_START.match(self._text, self.position)
        self.position = opening.end() if opening else self.position + 1
        if level >= MOST_LEVELS:
            self.position = len(self._text)
            return _Element(ANY, most=None)
        group = self.alternatives(level + 1)
        self.position += 1
        return _Element(group=group, start=start, end=self.position)

    def _atom(self, letter: str) -> _Element:
        if letter == "[":
            return _Element(self._class())
        if self._grammar and (name := _NAME.match(self._text, self.position)):
            self.position = name.end()
            return _Element(rule=name[0])
        if self._grammar and (token := _TOKEN.match(self._text, self.position)):
            self.position = token.end()
            return _Element(ANY)
        if letter == "\\":
            return _Element(self._escape())
        self.position += 1
        if letter == "." or self._grammar:
            return _Element(ANY)
        return _Element(0, least=0, most=0) if letter in "^$" else _Element(_bits(letter))

    def _literal(self) -> list[_Element]:
        """Read a string; each of its characters is an element."""
        self.position += 1
        found: list[_Element] = []
        while (letter := self._text[self.position : self.position + 1]) not in ("", '"'):
            found.append(_Element(self._escape() if letter == "\\" else _bits(letter)))
            self.position += letter != "\\"
        self.position += 1
        return found

    def _class(self) -> int:
        self.position += 1
        inverse = self._text[self.position : self.position + 1] == "^"
        self.position += inverse
        mask = 0
        while (letter := self._text[self.position : self.position + 1]) not in ("", "]"):
            first = self._class_character(letter)
            dash, last = (
                self._text[self.position : self.position + 1],
                self._text[self.position + 1 : self.position + 2],
            )
            if dash == "-" and last not in ("", "]"):
                self.position += 1
                first = _range_of(first, self._class_character(last))
            mask |= first
        self.position += 1
        # All other characters are one bit, and no class has or excludes every one of them.
        return ANY & ~mask | 1 << _OTHERS if inverse else mask

    def _class_character(self, letter: str) -> int:
        if letter == "\\":
            return self._escape()
        self.position += 1
        return _bits(letter)

    def _escape(self) -> int:
        found = _CODE.match(self._text, self.position)
        if found is None:
            self.position += 1
            return ANY
        self.position = found.end()
        code = found[1] or found[2] or found[3]
        if code:
            return 1 << min(int(code, 16), _OTHERS)
        if not self._grammar and found[4] in _CLASSES:
            return _CLASSES[found[4]]
        if not self._grammar and found[4] in "bB":
            return 0
        return _bits(_CONTROLS.get(found[4], found[4]))

    def _repeat(self, element: _Element) -> bool:
        """Read a count, and put it on the element before it. Return whether there is one."""
        letter = self._text[self.position]
        found = _COUNT.match(self._text, self.position) if letter == "{" else None
        if letter == "{" and found is None:
            return False
        self.position = found.end() if found else self.position + 1
        if not self._grammar and self._text[self.position : self.position + 1] in ("?", "+") and element.most != 1:
            self.position += 1
        least, most = _bounds_of(letter, found)
        element.least *= least
        element.most = None if most is None or element.most is None else element.most * most
        element.end = self.position
        return True


def _bounds_of(letter: str, count: re.Match[str] | None) -> tuple[int, int | None]:
    if count is None:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[letter]
    least = int(count[1] or 0)
    if not count[2]:
        return least, least
    return least, int(count[3]) if count[3] else None


def _range_of(first: int, last: int) -> int:
    """Return all characters from the lowest of one set to the highest of another."""
    if not first or not last:
        return first | last
    low, high = (first & -first).bit_length() - 1, last.bit_length() - 1
    return ((1 << (high + 1)) - 1) & ~((1 << low) - 1) if low <= high else 0


class _TooComplicated(Exception):
    """The expression takes more steps to judge than MOST_STEPS."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of loops at some place: the characters that a round of each may begin with, and how many they are."""

    characters: int = 0
    loops: int = 0


@dataclass(frozen=True, slots=True)
class _Summary:
    """What is known of a part: the longest run within it, and the run at its end, which the next part may go on."""

    ambiguity: Ambiguity
    tail: _Run


class _Judge:
    """Computes the ambiguity of alternatives, and of each rule once."""

    def __init__(self, rules: dict[str, Alternatives]) -> None:
        self._rules = rules
        self._summaries: dict[str, _Summary] = {}
        self._extensions: dict[tuple[str, int], tuple[_Run, bool]] = {}
        self._open: set[object] = set()
        self._steps = 0

    def judge(self, all_alternatives: Iterable[Alternatives]) -> Ambiguity:
        """Return the worst of these. What takes too many steps counts as endlessly ambiguous."""
        try:
            return _either([self._summarize(each, 0) for each in all_alternatives]).ambiguity
        except _TooComplicated:
            return Ambiguity(ANY, loops=MOST_STEPS, nested=True)

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise _TooComplicated

    def _summarize(self, alternatives: Alternatives, level: int) -> _Summary:
        return _either([self._summarize_sequence(each, level) for each in alternatives.sequences])

    def _summarize_sequence(self, elements: list[_Element], level: int) -> _Summary:
        first, optional, nested, copies, longest = 0, True, False, 1, 0
        current = _Run()
        for element in elements:
            self._count_step()
            found = self._summarize_element(element, level)
            part = found.ambiguity
            first = first | part.first if optional else first
            optional = optional and part.optional
            nested, copies = nested or part.nested, max(copies, part.copies)
            further, passes = self._extend(current, element, level)
            longest = max(longest, part.loops, further.loops)
            current = max(further if passes else _Run(), found.tail, key=lambda run: run.loops)
        if elements and elements[-1].rule in self._open and not current.loops:
            # A rule that ends with itself is a loop.
            current, longest = _Run(first or ANY, 1), max(longest, 1)
        return _Summary(Ambiguity(first, optional, longest, nested, copies), current)

    def _summarize_element(self, element: _Element, level: int) -> _Summary:
        if element.rule is not None:
            inner = self._summarize_rule(element.rule, level)
        elif element.group is not None:
            inner = self._summarize(element.group, level + 1)
        else:
            inner = _Summary(Ambiguity(element.characters, element.characters == 0), _Run())
        part, tail = inner.ambiguity, inner.tail
        loops = part.loops
        if element.is_loop and not part.loops:
            tail, loops = _Run(part.first, 1), 1
        elif element.most != 1 and tail.loops:
            # What ends one round may go on in the next.
            further, passes = self._extend(tail, _once(element), level)
            rounds = 2 if element.most is None else min(element.most, MOST_ROUNDS)
            more = (further.loops - tail.loops) * (rounds - 2) if passes else 0
            further = _Run(further.characters, further.loops + more)
            loops, tail = max(loops, further.loops), further if passes else tail
        copies = part.copies * max(element.most or element.least, 1)
        nested = part.nested or (element.is_loop and part.loops > 0)
        ambiguity = Ambiguity(part.first, part.optional or element.least == 0, loops, nested, copies)
        return _Summary(ambiguity, tail)

    def _summarize_rule(self, name: str, level: int) -> _Summary:
        """Summarize a rule. One that is being summarized calls itself: it is a loop."""
        known = self._summaries.get(name)
        if known is not None:
            return known
        if name in self._open or name not in self._rules or level > MOST_LEVELS:
            return _Summary(Ambiguity(0, optional=False), _Run())
        self._open.add(name)
        found = self._summaries[name] = self._summarize(self._rules[name], level + 1)
        self._open.remove(name)
        return found

    def _extend(self, run: _Run, element: _Element, level: int) -> tuple[_Run, bool]:
        """Return the run as it goes on into an element, and whether it goes on behind it."""
        if not run.loops:
            return run, True
        self._count_step()
        if element.rule is not None:
            further, passes = self._extend_into_rule(run, element.rule, level)
        elif element.group is not None:
            further, passes = self._extend_into(run, element.group, level + 1)
        else:
            further, passes = run, bool(run.characters & element.characters) or not element.characters
        if passes and element.is_loop and further.loops == run.loops:
            further = _Run(run.characters & (element.characters or ANY), run.loops + 1)
        return further, passes or element.least == 0

    def _extend_into(self, run: _Run, alternatives: Alternatives, level: int) -> tuple[_Run, bool]:
        best, passes_any = run, False
        for sequence in alternatives.sequences:
            current, passes = run, True
            for element in sequence:
                current, passes = self._extend(current, element, level)
                if not passes:
                    break
            best, passes_any = max(best, current, key=lambda each: each.loops), passes_any or passes
        return best, passes_any

    def _extend_into_rule(self, run: _Run, name: str, level: int) -> tuple[_Run, bool]:
        key = name, run.characters
        known = self._extensions.get(key)
        if known is not None:
            return _Run(known[0].characters, run.loops + known[0].loops), known[1]
        if key in self._open or name not in self._rules or level > MOST_LEVELS:
            return _Run(run.characters, run.loops + 1), True
        self._open.add(key)
        further, passes = self._extend_into(run, self._rules[name], level + 1)
        self._open.remove(key)
        self._extensions[key] = _Run(further.characters, further.loops - run.loops), passes
        return further, passes


def _once(element: _Element) -> _Element:
    """Return the element without its repetition."""
    return _Element(element.characters, element.group, element.rule)


def _either(parts: list[_Summary]) -> _Summary:
    first, optional, nested, copies, loops = 0, False, False, 1, 0
    for part in (each.ambiguity for each in parts):
        first, optional = first | part.first, optional or part.optional
        nested, copies, loops = nested or part.nested, max(copies, part.copies), max(loops, part.loops)
    tail = max((each.tail for each in parts), key=lambda run: run.loops, default=_Run())
    return _Summary(Ambiguity(first, optional, loops, nested, copies), tail)


def pattern_ambiguity(pattern: str) -> Ambiguity:
    """Return the ambiguity of a regular expression."""
    return _Judge({}).judge([_Parser(pattern, grammar=False).alternatives()])


def pattern_loops(pattern: str) -> list[str]:
    """Return the repeated groups of a regular expression as expressions of their own, the outermost first."""
    found = _Parser(pattern, grammar=False).alternatives()
    return [pattern[each.start : each.end] for each in _repeated_groups(found)]


@dataclass(frozen=True, slots=True)
class Grammar:
    """The rules of a grammar in GBNF."""

    text: str
    rules: dict[str, Alternatives]

    def ambiguity(self) -> Ambiguity:
        """Return the worst ambiguity of any rule."""
        return _Judge(self.rules).judge(self.rules.values())

    def most_alternatives(self) -> int:
        """Return the number of alternatives at the place that has most."""
        return max((len(each.sequences) for rule in self.rules.values() for each in _all_alternatives(rule)), default=0)

    def loops(self) -> list[str]:
        """Return the repeated groups of all rules as source text."""
        return [self.text[each.start : each.end] for rule in self.rules.values() for each in _repeated_groups(rule)]


def parse_grammar(text: str) -> Grammar:
    """Read the rules of a grammar. What is no rule is left out: llama.cpp refuses it."""
    rules: dict[str, Alternatives] = {}
    parser = _Parser(text, grammar=True)
    parser.skip_blanks(lines=True)
    while found := _DEFINITION.match(text, parser.position):
        parser.position = found.end()
        rules[found[1]] = parser.alternatives()
        while text[parser.position : parser.position + 1] == ")":
            parser.position += 1
            parser.skip_blanks(lines=True)
    return Grammar(text, rules)


def _all_alternatives(alternatives: Alternatives) -> Iterator[Alternatives]:
    """Yield these and all alternatives in groups within them."""
    todo = [alternatives]
    while todo:
        current = todo.pop()
        yield current
        todo += [each.group for sequence in current.sequences for each in sequence if each.group is not None]


def _repeated_groups(alternatives: Alternatives) -> Iterator[_Element]:
    for each in _all_alternatives(alternatives):
        yield from (
            element
            for sequence in each.sequences
            for element in sequence
            if element.is_loop and element.group is not None
        )
