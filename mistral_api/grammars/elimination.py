"""The way back from an automaton: to one expression, and to the rules of a grammar."""

from __future__ import annotations

from typing import NamedTuple

from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.expression import (
    EMPTY,
    Characters,
    Expression,
    RuleReference,
    children,
    choice,
    repeat,
    sequence,
)
from mistral_api.grammars.minimal import Automaton
from mistral_api.grammars.time_limit import check_time

# The most characters, classes and groups of an expression.
MOST_PARTS = 6_000
# Expressions are looked through by functions that call themselves.
MOST_DEPTH = 80
MOST_STATES_OF_EXPRESSION = 400
_TOO_LONG = "what it demands of a text becomes too long an expression"
_FIRST, _LAST = -1, -2


class _Edge(NamedTuple):
    """An expression, the number of its parts, and how deep these are nested at most."""

    expression: Expression
    size: int = 0
    depth: int = 0


_NO_WAY = _Edge(EMPTY)


class _Graph:
    """States with expressions between them, of which the states are taken away one by one."""

    def __init__(self, automaton: Automaton) -> None:
        self._edges: dict[int, dict[int, _Edge]] = {_FIRST: {0: _NO_WAY}}
        self._sources: dict[int, set[int]] = {0: {_FIRST}}
        for state, moves in enumerate(automaton.moves):
            self._edges[state] = {}
            for target, allowed in moves.items():
                self._add(state, target, _Edge(Characters(allowed), 1))
        for state in automaton.accepting:
            self._add(state, _LAST, _NO_WAY)

    def _add(self, source: int, target: int, edge: _Edge) -> None:
        check_time()
        known = self._edges[source].get(target)
        if known is not None:
            both = choice([known.expression, edge.expression])
            edge = _Edge(both, known.size + edge.size, max(known.depth, edge.depth) + 1)
        if edge.size > MOST_PARTS or edge.depth > MOST_DEPTH:
            edge = _measured(edge.expression)
        if edge.size > MOST_PARTS or edge.depth > MOST_DEPTH:
            raise Untranslatable(_TOO_LONG)
        self._edges[source][target] = edge
        self._sources.setdefault(target, set()).add(source)

    def reduce(self) -> Expression:
        """Return the expression of all ways from the first state to an accepting one."""
        left = [state for state in self._edges if state != _FIRST]
        while left:
            state = min(left, key=self._cost)
            left.remove(state)
            self._take_away(state)
        return self._edges[_FIRST][_LAST].expression

    def _cost(self, state: int) -> int:
        """Return about how much longer the expressions become when a state is taken away."""
        check_time()
        incoming = [self._edges[source][state].size for source in self._sources[state] if source != state]
        outgoing = [edge.size for target, edge in self._edges[state].items() if target != state]
        loop = self._edges[state].get(state, _NO_WAY).size
        return (
            sum(incoming) * (len(outgoing) - 1)
            + sum(outgoing) * (len(incoming) - 1)
            + loop * (len(incoming) * len(outgoing) - 1)
        )

    def _take_away(self, state: int) -> None:
        outgoing = self._edges.pop(state)
        loop = outgoing.pop(state, _NO_WAY)
        sources = self._sources.pop(state) - {state}
        for target in outgoing:
            self._sources[target].discard(state)
        for source in sources:
            before = self._edges[source].pop(state)
            for target, after in outgoing.items():
                way = sequence([before.expression, repeat(loop.expression), after.expression])
                depth = max(before.depth, loop.depth + 1, after.depth)
                self._add(source, target, _Edge(way, before.size + loop.size + after.size, depth))


def _measured(expression: Expression) -> _Edge:
    """Return an expression with its real size and depth: what is estimated grows also where parts become one."""
    size, depth, level = 0, 0, [expression]
    while level and size <= MOST_PARTS and depth <= MOST_DEPTH:
        size, depth = size + len(level), depth + 1
        level = [each for parent in level for each in children(parent)]
    return _Edge(expression, size, depth)


def as_expression(automaton: Automaton) -> Expression:
    """Return the expression of an automaton. Raises Untranslatable where that becomes too long."""
    if len(automaton.moves) > MOST_STATES_OF_EXPRESSION:
        raise Untranslatable(_TOO_LONG)
    return _Graph(automaton).reduce()


def as_rules(automaton: Automaton, name: str) -> dict[str, Expression]:
    """Return an automaton as the rules of a grammar, one for each state; ``name`` is that of the first one."""
    names = [name if state == 0 else f"{name}-{state}" for state in range(len(automaton.moves))]
    rules: dict[str, Expression] = {}
    for state, moves in enumerate(automaton.moves):
        check_time()
        ways = [sequence([Characters(allowed), RuleReference(names[to])]) for to, allowed in moves.items()]
        rules[names[state]] = choice(ways + [EMPTY] * (state in automaton.accepting))
    return rules
