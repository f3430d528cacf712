"""Deterministic automata of expressions: they do away with what matches a place, such as ``$``, ``\\b`` and ``(?!x)``.

An automaton reads a text from left to right. What a place demands of the text before it is known then, since an
automaton of its own has read along; what it demands of the text behind it is an obligation, which goes along until the
text has met it or failed it. All this is part of the state.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from mistral_api.grammars.characters import CharacterSet, from_ranges
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.expression import (
    ANY_TEXT,
    Characters,
    Choice,
    End,
    Expression,
    Look,
    Reference,
    Repeat,
    Sequence,
    Start,
    sequence,
    walk,
)

MOST_STATES = 1_500
_MOST_PLACES = 20_000
_MOST_THREADS = 400
# The most times that a place is looked at: about half a second.
_MOST_VISITS = 250_000
_TOO_MUCH = "what it demands of a text needs too many states to be kept apart"


class _Obligation(NamedTuple):
    """What the rest of the text must match, or must not: the threads that read it."""

    negative: bool
    threads: frozenset[_Thread]


class _Thread(NamedTuple):
    """A place in the expression that the text read so far leads to, and what the rest owes beside."""

    place: int
    owes: frozenset[_Obligation]


_Threads: TypeAlias = frozenset[_Thread]
_NOTHING_OWED: frozenset[_Obligation] = frozenset()


@dataclass(slots=True)
class _Place:
    """A place of an expression: where a character leads, where nothing leads on, and on which condition."""

    steps: list[tuple[CharacterSet, int]] = field(default_factory=list)
    empty: list[tuple[_Condition | None, int]] = field(default_factory=list)


class _AtStart(NamedTuple):
    """Nothing has been read."""


class _Behind(NamedTuple):
    """The text that has been read ends with a match of the prefix with this number."""

    prefix: int
    negative: bool


class _Ahead(NamedTuple):
    """The rest of the text matches, or does not match, from this place on."""

    first: int
    negative: bool


_Condition: TypeAlias = _AtStart | _Behind | _Ahead


class _Compiler:
    """Makes the places of an expression."""

    def __init__(self) -> None:
        self.places: list[_Place] = []
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
        self.places.append(_Place())
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
        elif isinstance(expression, Reference):
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

    def _condition(self, expression: Start | End | Look) -> _Condition:
        if isinstance(expression, Start):
            return _AtStart()
        if isinstance(expression, End):
            return _Ahead(self._end_place(), negative=False)
        key = expression.part, expression.ahead
        if key not in self._known_looks:
            self._known_looks[key] = self._look_ahead(key[0]) if key[1] else self._look_behind(key[0])
        number = self._known_looks[key]
        return (_Ahead if expression.ahead else _Behind)(number, expression.negative)

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


class _Context(NamedTuple):
    """What is known of the text before a place: the threads of each prefix, and whether there is any text."""

    prefixes: tuple[_Threads, ...]
    started: bool


class _State(NamedTuple):
    """All that is known after a part of the text."""

    threads: _Threads
    context: _Context


class _Reader:
    """Reads texts along all places of an expression at once. Characters are given as numbers of its alphabet."""

    def __init__(self, expression: Expression) -> None:
        self._compiler = _Compiler()
        self._first = self._compiler.add_whole(expression)
        self._places = self._compiler.places
        self.alphabet = split_characters(step[0] for place in self._places for step in place.steps)
        self._targets = [self._targets_of(place) for place in self._places]
        self._visits = 0

    def _targets_of(self, place: _Place) -> dict[int, list[int]]:
        targets: dict[int, list[int]] = {}
        for allowed, target in place.steps:
            for letter, letters in enumerate(self.alphabet):
                if letters.ranges[0][0] in allowed:
                    targets.setdefault(letter, []).append(target)
        return targets

    def first_state(self) -> _State:
        """Return the state before the first character."""
        prefixes: list[_Threads] = []
        for first in self._compiler.prefixes:
            prefixes.append(self._closure([_Thread(first, _NOTHING_OWED)], _Context(tuple(prefixes), started=False)))
        context = _Context(tuple(prefixes), started=False)
        return _State(self._closure([_Thread(self._first, _NOTHING_OWED)], context), context)

    def next_state(self, state: _State, letter: int) -> _State:
        """Return the state after one more character."""
        prefixes: list[_Threads] = []
        for threads in state.context.prefixes:
            prefixes.append(self._advanced(threads, letter, _Context(tuple(prefixes), started=True)))
        context = _Context(tuple(prefixes), started=True)
        return _State(self._advanced(state.threads, letter, context), context)

    def accepts(self, threads: _Threads) -> bool:
        """Return whether the text may end here."""
        return any(
            thread.place in self._compiler.accepting
            and all(self.accepts(owed.threads) != owed.negative for owed in thread.owes)
            for thread in threads
        )

    def _advanced(self, threads: _Threads, letter: int, context: _Context) -> _Threads:
        moved: list[_Thread] = []
        for thread in threads:
            targets = self._targets[thread.place].get(letter)
            owes = self._advanced_owes(thread.owes, letter, context) if targets else None
            if targets and owes is not None:
                moved += [_Thread(target, owes) for target in targets]
        return self._closure(moved, context)

    def _advanced_owes(
        self, owes: frozenset[_Obligation], letter: int, context: _Context
    ) -> frozenset[_Obligation] | None:
        """Return what is still owed after a character; None where that can never be met."""
        found: frozenset[_Obligation] | None = _NOTHING_OWED
        for owed in owes:
            threads = self._advanced(owed.threads, letter, context)
            found = self._with_obligation(found, owed.negative, threads)
        return found

    def _with_obligation(
        self, owes: frozenset[_Obligation] | None, negative: bool, threads: _Threads
    ) -> frozenset[_Obligation] | None:
        if owes is None:
            return None
        met = any(thread.place in self._compiler.universal and not thread.owes for thread in threads)
        if met or not threads:
            return owes if met != negative else None
        return owes | {_Obligation(negative, threads)}

    def _closure(self, threads: list[_Thread], context: _Context) -> _Threads:
        """Return the threads at places that read a character, or where a text may end, that these lead to."""
        seen, todo = set(threads), list(threads)
        while todo:
            thread = todo.pop()
            for condition, target in self._places[thread.place].empty:
                owes = self._owes_beyond(thread.owes, condition, context)
                if owes is not None and (further := _Thread(target, owes)) not in seen:
                    seen.add(further)
                    todo.append(further)
            self._visits += 1
            if self._visits > _MOST_VISITS:
                raise Untranslatable(_TOO_MUCH)
        return self._simplified([thread for thread in seen if self._matters(thread.place)])

    def _matters(self, place: int) -> bool:
        return bool(self._places[place].steps) or place in self._compiler.accepting

    def _owes_beyond(
        self, owes: frozenset[_Obligation], condition: _Condition | None, context: _Context
    ) -> frozenset[_Obligation] | None:
        """Return what is owed behind a condition; None where it does not hold."""
        if condition is None:
            return owes
        if isinstance(condition, _AtStart):
            return None if context.started else owes
        if isinstance(condition, _Behind):
            return owes if self.accepts(context.prefixes[condition.prefix]) != condition.negative else None
        ahead = self._closure([_Thread(condition.first, _NOTHING_OWED)], context)
        return self._with_obligation(owes, condition.negative, ahead)

    def _simplified(self, threads: list[_Thread]) -> _Threads:
        """Return the threads without those that owe more than another one at the same place."""
        least: dict[int, list[frozenset[_Obligation]]] = {}
        for thread in sorted(threads, key=lambda each: len(each.owes)):
            known = least.setdefault(thread.place, [])
            if not any(owes <= thread.owes for owes in known):
                known.append(thread.owes)
        found = frozenset(_Thread(place, owes) for place, all_owes in least.items() for owes in all_owes)
        if len(found) > _MOST_THREADS:
            raise Untranslatable(_TOO_MUCH)
        return found


def split_characters(sets: Iterable[CharacterSet]) -> list[CharacterSet]:
    """Return disjoint sets of characters, of which each of these is made up."""
    different = list(dict.fromkeys(sets))
    edges = sorted({edge for each in different for low, high in each.ranges for edge in (low, high + 1)})
    members: dict[int, list[tuple[int, int]]] = {}
    for low, following in itertools.pairwise(edges):
        key = sum(1 << number for number, each in enumerate(different) if low in each)
        if key:
            members.setdefault(key, []).append((low, following - 1))
    return [found for ranges in members.values() if (found := from_ranges(ranges))]


@dataclass(frozen=True, slots=True)
class Automaton:
    """States from 0 on, which is the first: from each, the characters that lead to others, and which accept."""

    moves: list[dict[int, CharacterSet]]
    accepting: frozenset[int]

    def accepts(self, text: str) -> bool:
        """Return whether it reads a text to its end. That takes as long as the text is long."""
        state = 0
        for code in map(ord, text):
            target = next((target for target, allowed in self.moves[state].items() if code in allowed), None)
            if target is None:
                return False
            state = target
        return state in self.accepting


def read_text(expression: Expression, text: str) -> bool:
    """Return whether an expression matches a whole text, without its automaton.

    That takes longer for each character than an automaton does, but also an expression whose automaton would be too
    large, or matches nothing, may be asked. Raises Untranslatable where it takes too long.
    """
    reader = _Reader(expression)
    state = reader.first_state()
    for code in map(ord, text):
        letter = next((number for number, letters in enumerate(reader.alphabet) if code in letters), None)
        if letter is None or not state.threads:
            return False
        state = reader.next_state(state, letter)
    return reader.accepts(state.threads)


def build_automaton(expression: Expression) -> Automaton:
    """Return the smallest automaton of an expression for a whole text.

    Raises Untranslatable where it is too large, or no text matches.
    """
    reader = _Reader(expression)
    numbers, moves = {reader.first_state(): 0}, list[dict[int, int]]()
    states = list(numbers)
    while len(moves) < len(states):
        found: dict[int, int] = {}
        for letter in range(len(reader.alphabet)):
            following = reader.next_state(states[len(moves)], letter)
            if following.threads:
                if following not in numbers:
                    numbers[following] = len(states)
                    states.append(following)
                found[letter] = numbers[following]
        moves.append(found)
        if len(states) > MOST_STATES * 4:
            raise Untranslatable(_TOO_MUCH)
    accepting = frozenset(number for state, number in numbers.items() if reader.accepts(state.threads))
    return _smallest(moves, accepting, reader.alphabet)


def _smallest(moves: list[dict[int, int]], accepting: frozenset[int], alphabet: list[CharacterSet]) -> Automaton:
    useful = _leading_to(moves, accepting)
    if 0 not in useful:
        raise Untranslatable("no text matches it")
    moves = [{letter: to for letter, to in each.items() if to in useful} for each in moves]
    groups = _equal_states(moves, accepting)
    # The group of the first state comes first, the others as they are met.
    order = {group: number for number, group in enumerate(dict.fromkeys(groups[each] for each in sorted(useful)))}
    merged: list[dict[int, CharacterSet]] = [{} for _ in order]
    for state in sorted(useful):
        found = merged[order[groups[state]]]
        if not found:
            found |= _by_target({letter: order[groups[to]] for letter, to in moves[state].items()}, alphabet)
    if len(merged) > MOST_STATES:
        raise Untranslatable(_TOO_MUCH)
    return Automaton(merged, frozenset(order[groups[state]] for state in accepting if state in useful))


def _by_target(moves: dict[int, int], alphabet: list[CharacterSet]) -> dict[int, CharacterSet]:
    ranges: dict[int, list[tuple[int, int]]] = {}
    for letter, target in moves.items():
        ranges.setdefault(target, []).extend(alphabet[letter].ranges)
    return {target: from_ranges(each) for target, each in ranges.items()}


def _leading_to(moves: list[dict[int, int]], accepting: frozenset[int]) -> set[int]:
    """Return the states from which an accepting one can be reached."""
    sources: dict[int, list[int]] = {}
    for source, found in enumerate(moves):
        for target in found.values():
            sources.setdefault(target, []).append(source)
    useful, todo = set(accepting), list(accepting)
    while todo:
        for source in sources.get(todo.pop(), ()):
            if source not in useful:
                useful.add(source)
                todo.append(source)
    return useful


def _equal_states(moves: list[dict[int, int]], accepting: frozenset[int]) -> list[int]:
    """Return a group for each state: those of one group read the same texts (Moore's algorithm)."""
    groups, size = [int(state in accepting) for state in range(len(moves))], 0
    while True:
        keys = [
            (groups[state], tuple(sorted((letter, groups[to]) for letter, to in found.items())))
            for state, found in enumerate(moves)
        ]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        groups = [numbers[key] for key in keys]
        if len(numbers) == size:
            return groups
        size = len(numbers)
