"""Deterministic automata of expressions: they do away with what matches a place, such as ``$``, ``\\b`` and ``(?!x)``.

An automaton reads a text from left to right. What a place demands of the text before it is known then, since an
automaton of its own has read along; what it demands of the text behind it is an obligation, which goes along until the
text has met it or failed it. All this is part of the state.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from mistral_api.grammars.alphabet import Alphabet
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.expression import Expression
from mistral_api.grammars.minimal import MOST_STATES, TOO_MANY_STATES, Automaton, smallest
from mistral_api.grammars.places import AtStart, Behind, Condition, PlaceCompiler
from mistral_api.grammars.time_limit import check_time

# Before those are merged that read the same texts.
_MOST_STATES_AT_FIRST = MOST_STATES * 4
_MOST_THREADS = 400
# Before those are left out that owe more than another one.
_MOST_THREADS_AT_FIRST = 4_000
# The most times that a place is looked at: about half a second.
_MOST_VISITS = 250_000
_VISITS_PER_LOOK_AT_THE_TIME = 64


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
        self._compiler = PlaceCompiler()
        self._first = self._compiler.add_whole(expression)
        self._places = self._compiler.places
        self.alphabet = Alphabet(step[0] for place in self._places for step in place.steps)
        letters = self.alphabet.letters_by_set()
        self._steps = [[(letters[allowed], target) for allowed, target in place.steps] for place in self._places]
        self._visits = 0

    def letters_after(self, state: _State) -> list[int]:
        """Return the letters that may lead from a state to another one."""
        found = 0
        for thread in state.threads:
            for letters, _ in self._steps[thread.place]:
                found |= letters
        return [letter for letter in range(found.bit_length()) if found >> letter & 1]

    def first_state(self) -> _State:
        """Return the state before the first character."""
        prefixes: list[_Threads] = []
        for first in self._compiler.prefixes:
            prefixes.append(self._closure([_Thread(first, _NOTHING_OWED)], _Context(tuple(prefixes), started=False)))
        context = _Context(tuple(prefixes), started=False)
        return _State(self._closure([_Thread(self._first, _NOTHING_OWED)], context), context)

    def next_state(self, state: _State, letter: int) -> _State:
        """Return the state after one more character."""
        self._visit()
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
            targets = [target for letters, target in self._steps[thread.place] if letters >> letter & 1]
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
            self._visit()
        return self._simplified([thread for thread in seen if self._matters(thread.place)])

    def _visit(self) -> None:
        self._visits += 1
        if self._visits > _MOST_VISITS:
            raise Untranslatable(TOO_MANY_STATES)
        if self._visits % _VISITS_PER_LOOK_AT_THE_TIME == 0:
            check_time()

    def _matters(self, place: int) -> bool:
        return bool(self._places[place].steps) or place in self._compiler.accepting

    def _owes_beyond(
        self, owes: frozenset[_Obligation], condition: Condition | None, context: _Context
    ) -> frozenset[_Obligation] | None:
        """Return what is owed behind a condition; None where it does not hold."""
        if condition is None:
            return owes
        if isinstance(condition, AtStart):
            return None if context.started else owes
        if isinstance(condition, Behind):
            return owes if self.accepts(context.prefixes[condition.prefix]) != condition.negative else None
        ahead = self._closure([_Thread(condition.first, _NOTHING_OWED)], context)
        return self._with_obligation(owes, condition.negative, ahead)

    def _simplified(self, threads: list[_Thread]) -> _Threads:
        """Return the threads without those that owe more than another one at the same place."""
        if len(threads) > _MOST_THREADS_AT_FIRST:
            raise Untranslatable(TOO_MANY_STATES)
        least: dict[int, list[frozenset[_Obligation]]] = {}
        for thread in sorted(threads, key=lambda each: len(each.owes)):
            known = least.setdefault(thread.place, [])
            if not any(owes <= thread.owes for owes in known):
                known.append(thread.owes)
        found = frozenset(_Thread(place, owes) for place, all_owes in least.items() for owes in all_owes)
        if len(found) > _MOST_THREADS:
            raise Untranslatable(TOO_MANY_STATES)
        return found


def read_text(expression: Expression, text: str) -> bool:
    """Return whether an expression matches a whole text, without its automaton.

    That takes longer for each character than an automaton does, but also an expression whose automaton would be too
    large, or matches nothing, may be asked. Raises Untranslatable where it takes too long.
    """
    reader = _Reader(expression)
    state = reader.first_state()
    for code in map(ord, text):
        letter = reader.alphabet.letter_of(code)
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
        for letter in reader.letters_after(states[len(moves)]):
            following = reader.next_state(states[len(moves)], letter)
            if following.threads:
                if following not in numbers:
                    numbers[following] = len(states)
                    states.append(following)
                found[letter] = numbers[following]
        moves.append(found)
        if len(states) > _MOST_STATES_AT_FIRST:
            raise Untranslatable(TOO_MANY_STATES)
    accepting = frozenset(number for state, number in numbers.items() if reader.accepts(state.threads))
    return smallest(moves, accepting, reader.alphabet.letters)
