"""The rules of a grammar: which lead to themselves, and how they are put into each other."""

from __future__ import annotations

from typing import NamedTuple

from mistral_api.grammars.elimination import MOST_DEPTH, MOST_PARTS
from mistral_api.grammars.errors import InvalidSyntax, Untranslatable
from mistral_api.grammars.expression import (
    NOTHING,
    Choice,
    Expression,
    Reference,
    Repeat,
    Sequence,
    children,
    choice,
    rebuilt,
    repeat,
    sequence,
    walk,
)

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
        todo += [each.name for each in walk(rules[name]) if isinstance(each, Reference)][::-1]
    return found


def without_simple_recursion(name: str, body: Expression) -> Expression:
    """Return a rule that begins, or ends, with itself as a repetition: ``a: a "," b | b`` is ``b ("," b)*``."""
    itself = Reference(name)
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
    nullable = _nullable_rules(rules)
    begins = {name: _beginnings(body, nullable) for name, body in rules.items()}
    for name in rules:
        seen, todo = set[str](), set(begins[name])
        while todo:
            each = todo.pop()
            if each == name:
                raise Untranslatable(f"the rule '{name}' begins with itself")
            seen.add(each)
            todo |= begins[each] - seen


def _nullable_rules(rules: dict[str, Expression]) -> set[str]:
    nullable: set[str] = set()
    while True:
        found = {name for name, body in rules.items() if _is_nullable(body, nullable)}
        if found == nullable:
            return nullable
        nullable = found


def _is_nullable(expression: Expression, nullable: set[str]) -> bool:
    if isinstance(expression, Reference):
        return expression.name in nullable
    if isinstance(expression, Choice):
        return any(_is_nullable(each, nullable) for each in expression.options)
    if isinstance(expression, Repeat):
        return expression.least == 0 or _is_nullable(expression.part, nullable)
    return isinstance(expression, Sequence) and all(_is_nullable(each, nullable) for each in expression.parts)


def _beginnings(expression: Expression, nullable: set[str]) -> set[str]:
    """Return the names of the rules that an expression may begin with."""
    if isinstance(expression, Reference):
        return {expression.name}
    found: set[str] = set()
    for each in children(expression):
        found |= _beginnings(each, nullable)
        if isinstance(expression, Sequence) and not _is_nullable(each, nullable):
            break
    return found


def without_endless_rules(rules: dict[str, Expression]) -> dict[str, Expression]:
    """Return the rules without the options that never come to an end. Raises Untranslatable if no text fits."""
    ending: set[str] = set()
    while True:
        found = {name for name, body in rules.items() if _ends(body, ending)}
        if found == ending:
            break
        ending = found
    first = next(iter(rules))
    if first not in ending:
        raise Untranslatable(f"no text fits '{first}', which never comes to an end")
    return {name: _ended(body, ending) for name, body in rules.items() if name in ending}


def _ends(expression: Expression, ending: set[str]) -> bool:
    if isinstance(expression, Reference):
        return expression.name in ending
    if isinstance(expression, Choice):
        return any(_ends(each, ending) for each in expression.options)
    return (isinstance(expression, Repeat) and expression.least == 0) or all(
        _ends(each, ending) for each in children(expression)
    )


def _ended(expression: Expression, ending: set[str]) -> Expression:
    if isinstance(expression, Reference):
        return expression if expression.name in ending else NOTHING
    parts = children(expression)
    return rebuilt(expression, [_ended(each, ending) for each in parts]) if parts else expression


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
        if isinstance(expression, Reference):
            return self._rule(expression.name)
        found = [self._expression(each) for each in children(expression)]
        size, depth = sum(each.size for each in found) + 1, max((each.depth for each in found), default=0) + 1
        if size > MOST_PARTS:
            raise Untranslatable("its rules put into each other are too long an expression")
        if depth > MOST_DEPTH:
            raise Untranslatable(_TOO_DEEP)
        inner = rebuilt(expression, [each.expression for each in found]) if found else expression
        return _Inlined(inner, size, depth)
