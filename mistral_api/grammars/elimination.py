"""The way back from an automaton: to one expression, and to the rules of a grammar."""

from __future__ import annotations

from mistral_api.grammars.automaton import Automaton
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.expression import (
    EMPTY,
    Characters,
    Expression,
    Reference,
    choice,
    repeat,
    sequence,
)

# The most characters, classes and groups of an expression.
MOST_PARTS = 6_000
_FIRST, _LAST = -1, -2


class _Graph:
    """States with expressions between them, of which the states are taken away one by one."""

    def __init__(self, automaton: Automaton) -> None:
        self._edges: dict[int, dict[int, tuple[Expression, int]]] = {_FIRST: {0: (EMPTY, 0)}}
        self._sources: dict[int, set[int]] = {0: {_FIRST}}
        for state, moves in enumerate(automaton.moves):
            self._edges[state] = {}
            for target, allowed in moves.items():
                self._add(state, target, Characters(allowed), 1)
        for state in automaton.accepting:
            self._add(state, _LAST, EMPTY, 0)

    def _add(self, source: int, target: int, expression: Expression, size: int) -> None:
        known = self._edges[source].get(target)
        if known is not None:
            expression, size = choice([known[0], expression]), known[1] + size
        if size > MOST_PARTS:
            raise Untranslatable("what it demands of a text becomes too long an expression")
        self._edges[source][target] = expression, size
        self._sources.setdefault(target, set()).add(source)

    def reduce(self) -> Expression:
        """Return the expression of all ways from the first state to an accepting one."""
        left = [state for state in self._edges if state != _FIRST]
        while left:
            state = min(left, key=self._cost)
            left.remove(state)
            self._take_away(state)
        return self._edges[_FIRST][_LAST][0]

    def _cost(self, state: int) -> int:
        """Return about how much longer the expressions become when a state is taken away."""
        incoming = [self._edges[source][state][1] for source in self._sources[state] if source != state]
        outgoing = [size for target, (_, size) in self._edges[state].items() if target != state]
        loop = self._edges[state].get(state, (EMPTY, 0))[1]
        return (
            sum(incoming) * (len(outgoing) - 1)
            + sum(outgoing) * (len(incoming) - 1)
            + loop * (len(incoming) * len(outgoing) - 1)
        )

    def _take_away(self, state: int) -> None:
        outgoing = self._edges.pop(state)
        loop, loop_size = outgoing.pop(state, (EMPTY, 0))
        sources = self._sources.pop(state) - {state}
        for target in outgoing:
            self._sources[target].discard(state)
        for source in sources:
            before, size = self._edges[source].pop(state)
            for target, (after, after_size) in outgoing.items():
                way = sequence([before, repeat(loop), after])
                self._add(source, target, way, size + loop_size + after_size)


def as_expression(automaton: Automaton) -> Expression:
    """Return the expression of an automaton. Raises Untranslatable where that becomes too long."""
    return _Graph(automaton).reduce()


def as_rules(automaton: Automaton, name: str) -> dict[str, Expression]:
    """Return an automaton as the rules of a grammar, one for each state; ``name`` is that of the first one."""
    names = [name if state == 0 else f"{name}-{state}" for state in range(len(automaton.moves))]
    rules: dict[str, Expression] = {}
    for state, moves in enumerate(automaton.moves):
        ways = [sequence([Characters(allowed), Reference(names[to])]) for to, allowed in moves.items()]
        rules[names[state]] = choice(ways + [EMPTY] * (state in automaton.accepting))
    return rules
