"""The rules of a grammar: which lead to themselves, and how they are put into each other."""

from __future__ import annotations

from collections.abc import Callable, Set
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from mistral_api.grammars.elimination import MOST_DEPTH, MOST_PARTS
from mistral_api.grammars.errors import InvalidSyntax, Untranslatable
from mistral_api.grammars.expression import (
    NOTHING,
    Choice,
    Expression,
    Repeat,
    RuleReference,
    Sequence,
    children,
    choice,
    is_nullable,
    mapped,
    rebuilt,
    repeat,
    sequence,
    walk,
)
from mistral_api.grammars.time_limit import check_time

_TOO_DEEP = "its rules stand too deep in each other"


def used_rules(rules: dict[str, Expression], first: str) -> dict[str, Expression]:
    """Return the rules that the first one leads to, that one first. Raises Untranslatable for one that is missing."""
    found: dict[str, Expression] = {}
    todo = [first]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        if name not in rules:
            raise InvalidSyntax(f"'{name}' is not defined")
        found[name] = rules[name]
        todo += [each.name for each in walk(rules[name]) if isinstance(each, RuleReference)][::-1]
    return found


def without_simple_recursion(name: str, body: Expression) -> Expression:
    """Return a rule that begins, or ends, with itself as a repetition: ``a: a "," b | b`` is ``b ("," b)*``."""
    itself = RuleReference(name)
    options = list(body.options) if isinstance(body, Choice) else [body]
    parts = [list(each.parts) if isinstance(each, Sequence) else [each] for each in options]
    if itself not in walk(body):
        return body
    for at in (0, -1):
        others = [each for each in parts if each[at : at + 1 or None] != [itself]]
        ways = [each[1:] if at == 0 else each[:-1] for each in parts if each[at : at + 1 or None] == [itself]]
        if any(itself in walk(sequence(each)) for each in (*others, *ways)):
            continue
        again = repeat(choice(sequence(way) for way in ways))
        once = choice(sequence(each) for each in others)
        return sequence([once, again] if at == 0 else [again, once])
    return body


def refuse_left_recursion(rules: dict[str, Expression]) -> None:
    """Raise Untranslatable for a rule that begins with itself: llama.cpp refuses it."""
    nullable = _rules_of_a_kind(rules, is_nullable)
    begins = {name: _beginnings(body, nullable) for name, body in rules.items()}
    try:
        TopologicalSorter(begins).prepare()
    except CycleError as error:
        name = next(name for name in rules if name in error.args[1])
        raise Untranslatable(f"the rule '{name}' begins with itself") from error


def _rules_of_a_kind(rules: dict[str, Expression], is_one: Callable[[Expression, Set[str]], bool]) -> set[str]:
    """Return the rules that are of a kind, as soon as those are that they refer to.

    A rule is looked at again only when one that it refers to has turned out to be of the kind.
    """
    users: dict[str, set[str]] = {}
    for name, body in rules.items():
        for each in walk(body):
            if isinstance(each, RuleReference):
                users.setdefault(each.name, set()).add(name)
    found, todo = set[str](), list(rules)
    while todo:
        check_time()
        name = todo.pop()
        if name not in found and is_one(rules[name], found):
            found.add(name)
            todo += users.get(name, ())
    return found


def _beginnings(expression: Expression, nullable: Set[str]) -> set[str]:
    """Return the names of the rules that an expression may begin with."""
    if isinstance(expression, RuleReference):
        return {expression.name}
    found: set[str] = set()
    for each in children(expression):
        found |= _beginnings(each, nullable)
        if isinstance(expression, Sequence) and not is_nullable(each, nullable):
            break
    return found


def without_endless_rules(rules: dict[str, Expression]) -> dict[str, Expression]:
    """Return the rules without the options that never come to an end. Raises Untranslatable if no text fits."""
    ending = _rules_of_a_kind(rules, _ends)
    first = next(iter(rules))
    if first not in ending:
        raise Untranslatable(f"no text fits '{first}', which never comes to an end")
    return {name: _ended(body, ending) for name, body in rules.items() if name in ending}


def _ends(expression: Expression, ending: Set[str]) -> bool:
    if isinstance(expression, RuleReference):
        return expression.name in ending
    if isinstance(expression, Choice):
        return any(_ends(each, ending) for each in expression.options)
    return (isinstance(expression, Repeat) and expression.least == 0) or all(
        _ends(each, ending) for each in children(expression)
    )


def _ended(expression: Expression, ending: Set[str]) -> Expression:
    if isinstance(expression, RuleReference):
        return expression if expression.name in ending else NOTHING
    return mapped(expression, lambda each: _ended(each, ending))


def inlined(rules: dict[str, Expression]) -> Expression:
    """Return the first rule with all others put into it.

    Raises Untranslatable for a rule that calls itself, and where that becomes too long.
    """
    return _Inliner(rules).inline(next(iter(rules)))


class _Inlined(NamedTuple):
    """An expression with all rules put into it, the number of its parts, and how deep these are nested."""

    expression: Expression
    size: int
    depth: int


class _Inliner:
    """Puts rules into each other, each once."""

    def __init__(self, rules: dict[str, Expression]) -> None:
        self._rules = rules
        self._done: dict[str, _Inlined] = {}
        self._open: list[str] = []

    def inline(self, name: str) -> Expression:
        """Return a rule with all others put into it."""
        return self._rule(name).expression

    def _rule(self, name: str) -> _Inlined:
        if name in self._open:
            raise Untranslatable(f"the rule '{name}' calls itself, which no regular expression can say")
        if len(self._open) > MOST_DEPTH:
            raise Untranslatable(_TOO_DEEP)
        if name not in self._done:
            self._open.append(name)
            self._done[name] = self._expression(self._rules[name])
            self._open.pop()
        return self._done[name]

    def _expression(self, expression: Expression) -> _Inlined:
        check_time()
        if isinstance(expression, RuleReference):
            return self._rule(expression.name)
        found = [self._expression(each) for each in children(expression)]
        size, depth = sum(each.size for each in found) + 1, max((each.depth for each in found), default=0) + 1
        if size > MOST_PARTS:
            raise Untranslatable("its rules put into each other are too long an expression")
        if depth > MOST_DEPTH:
            raise Untranslatable(_TOO_DEEP)
        inner = rebuilt(expression, [each.expression for each in found]) if found else expression
        return _Inlined(inner, size, depth)
