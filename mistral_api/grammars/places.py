"""The places of an expression, between which the characters of a text lead.

This is a nondeterministic automaton. Some ways in it are open only where a condition holds, such as ``$``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from mistral_api.grammars.characters import CharacterSet
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.expression import (
    ANY_TEXT,
    Characters,
    Choice,
    End,
    Expression,
    Look,
    Repeat,
    RuleReference,
    Sequence,
    Start,
    sequence,
    walk,
)
from mistral_api.grammars.time_limit import check_time

_MOST_PLACES = 20_000


@dataclass(slots=True)
class Place:
    """A place of an expression: where a character leads, where nothing leads on, and on which condition."""

    steps: list[tuple[CharacterSet, int]] = field(default_factory=list)
    empty: list[tuple[Condition | None, int]] = field(default_factory=list)


class AtStart(NamedTuple):
    """Nothing has been read."""


class Behind(NamedTuple):
    """The text that has been read ends with a match of the prefix with this number."""

    prefix: int
    negative: bool


class Ahead(NamedTuple):
    """The rest of the text matches, or does not match, from this place on."""

    first: int
    negative: bool


Condition: TypeAlias = AtStart | Behind | Ahead


class PlaceCompiler:
    """Makes the places of an expression."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.accepting: set[int] = set()
        # From an accepting place of these every text goes on.
        self.universal: set[int] = set()
        self.prefixes: list[int] = []
        self._known_looks: dict[tuple[Expression, bool], int] = {}
        self._end: int | None = None

    def add_whole(self, expression: Expression) -> int:
        """Add an expression for a whole text, and return its first place."""
        last = self._new()
        self.accepting.add(last)
        return self._add(expression, last)

    def _new(self) -> int:
        if len(self.places) >= _MOST_PLACES:
            raise Untranslatable("its repetitions multiply to too much")
        check_time()
        self.places.append(Place())
        return len(self.places) - 1

    def _add(self, expression: Expression, following: int) -> int:
        """Add an expression that goes on at a place, and return its first place."""
        if isinstance(expression, Sequence):
            for part in reversed(expression.parts):
                following = self._add(part, following)
            return following
        if isinstance(expression, Repeat):
            return self._add_repeat(expression, following)
        place = self._new()
        if isinstance(expression, Characters):
            self.places[place].steps.append((expression.allowed, following))
        elif isinstance(expression, Choice):
            self.places[place].empty = [(None, self._add(option, following)) for option in expression.options]
        elif isinstance(expression, RuleReference):
            raise Untranslatable(f"the rule '{expression.name}' calls itself")
        else:
            self.places[place].empty.append((self._condition(expression), following))
        return place

    def _add_repeat(self, expression: Repeat, following: int) -> int:
        if expression.most is None:
            first = self._new()
            inner = self._add(expression.part, first)
            self.places[first].empty = [(None, inner), (None, following)]
        else:
            first = following
            for _ in range(expression.most - expression.least):
                option = self._new()
                self.places[option].empty = [(None, self._add(expression.part, first)), (None, following)]
                first = option
        for _ in range(expression.least):
            first = self._add(expression.part, first)
        return first

    def _condition(self, expression: Start | End | Look) -> Condition:
        if isinstance(expression, Start):
            return AtStart()
        if isinstance(expression, End):
            return Ahead(self._end_place(), negative=False)
        key = expression.part, expression.ahead
        if key not in self._known_looks:
            self._known_looks[key] = self._look_ahead(key[0]) if key[1] else self._look_behind(key[0])
        number = self._known_looks[key]
        return (Ahead if expression.ahead else Behind)(number, expression.negative)

    def _end_place(self) -> int:
        if self._end is None:
            self._end = self._new()
            self.accepting.add(self._end)
        return self._end

    def _look_ahead(self, part: Expression) -> int:
        rest = self._new()
        self.places[rest].steps.append((~CharacterSet(), rest))
        self.accepting.add(rest)
        self.universal.add(rest)
        return self._add(part, rest)

    def _look_behind(self, part: Expression) -> int:
        if any(isinstance(each, End) or (isinstance(each, Look) and each.ahead) for each in walk(part)):
            raise Untranslatable("a lookahead or '$' within a lookbehind is not supported")
        first = self.add_whole(sequence([ANY_TEXT, part]))
        # Those within the part have been added before, and are known when this one is asked.
        self.prefixes.append(first)
        return len(self.prefixes) - 1
