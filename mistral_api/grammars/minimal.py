"""Deterministic automata, and how states of them are merged."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from mistral_api.grammars.characters import CharacterSet, from_ranges
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.time_limit import check_time

MOST_STATES = 1_500
TOO_MANY_STATES = "what it demands of a text needs too many states to be kept apart"


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


def smallest(moves: list[dict[int, int]], accepting: frozenset[int], alphabet: list[CharacterSet]) -> Automaton:
    """Return the automaton in which no two states read the same texts, and none leads to no end.

    ``moves``: for each state the states that the letters of the alphabet lead to, by number. Raises Untranslatable
    where it is too large, or no text matches. It takes about n log n for n moves.
    """
    useful = _leading_to(moves, accepting)
    if 0 not in useful:
        raise Untranslatable("no text matches it")
    moves = [{letter: to for letter, to in each.items() if to in useful} for each in moves]
    groups = _Partition(moves, accepting & useful, useful).groups()
    # The group of the first state comes first, the others as they are met.
    order = {group: number for number, group in enumerate(dict.fromkeys(groups[each] for each in sorted(useful)))}
    merged: list[dict[int, CharacterSet]] = [{} for _ in order]
    for state in sorted(useful):
        found = merged[order[groups[state]]]
        if not found:
            found |= _by_target({letter: order[groups[to]] for letter, to in moves[state].items()}, alphabet)
    if len(merged) > MOST_STATES:
        raise Untranslatable(TOO_MANY_STATES)
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


class _Partition:
    """Groups of states that read the same texts as far as is known: first, those that accept, and the others.

    This is Hopcroft's algorithm: a group is split by what leads to another one, and of the two halves of a group only
    the smaller one has to split others again. A letter that leads nowhere is as good as a group of its own, since both
    first groups split others.
    """

    def __init__(self, moves: list[dict[int, int]], accepting: Set[int], states: Set[int]) -> None:
        self._members = [each for each in (set(accepting), set(states - accepting)) if each]
        self._group_of = {state: group for group, members in enumerate(self._members) for state in members}
        self._sources: dict[int, list[tuple[int, int]]] = {}
        for source in states:
            for letter, target in moves[source].items():
                self._sources.setdefault(target, []).append((letter, source))
        self._waiting = set(range(len(self._members)))

    def groups(self) -> dict[int, int]:
        """Return the group of each state."""
        while self._waiting:
            check_time()
            for sources in self._sources_by_letter(self._waiting.pop()):
                self._split_by(sources)
        return self._group_of

    def _sources_by_letter(self, group: int) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for target in self._members[group]:
            for letter, source in self._sources.get(target, ()):
                found.setdefault(letter, []).append(source)
        return list(found.values())

    def _split_by(self, states: list[int]) -> None:
        """Take these states out of their groups, into new ones."""
        chosen: dict[int, set[int]] = {}
        for state in states:
            chosen.setdefault(self._group_of[state], set()).add(state)
        for group, members in chosen.items():
            if len(members) < len(self._members[group]):
                self._add_group(group, members)

    def _add_group(self, old: int, members: set[int]) -> None:
        new = len(self._members)
        self._members[old] -= members
        self._members.append(members)
        self._group_of.update(dict.fromkeys(members, new))
        smaller = new if len(members) <= len(self._members[old]) else old
        self._waiting.add(new if old in self._waiting else smaller)
