"""Grammars in lark, as OpenAI's custom tools have them, in the words that llama.cpp understands.

A text fits where the rules can read it in some way, which is what lark's own parser (Earley) decides. llguidance, which
OpenAI uses, splits the text into terminals first, each as long as it can be, and so takes a few texts less.
"""

from __future__ import annotations

import re

from mistral_api.grammars.errors import InvalidSyntax, Untranslatable
from mistral_api.grammars.expression import Expression, RuleReference, mapped, sequence
from mistral_api.grammars.gbnf import without_nul, write_grammar, write_pattern
from mistral_api.grammars.lark_parser import IGNORED, parse_lark
from mistral_api.grammars.rules import (
    inlined,
    refuse_left_recursion,
    used_rules,
    without_endless_rules,
    without_simple_recursion,
)
from mistral_api.grammars.time_limit import bounded

MOST_LARK_CHARACTERS = 65_536
_START, _ROOT = "start", "root"
# A name that no grammar can have.
_WHOLE = "whole text"


@bounded
def lark_pattern(grammar: str) -> str:
    """Return the ``pattern`` that a client's JSON schema would have for strings that fit a grammar in lark.

    It is for a custom tool whose text is a string of a function's arguments, and still to be given to
    ``json_string_pattern``. Raises Untranslatable, also for a grammar whose rules call themselves, but for simple
    lists: no regular expression says that. Codex's grammars can be said.
    """
    return write_pattern(inlined(_rules(grammar)))


@bounded
def lark_text_grammar(grammar: str) -> str:
    """Return a grammar in GBNF of the texts that fit a grammar in lark. Raises Untranslatable."""
    return write_grammar(_named(_rules(grammar)))


def _rules(grammar: str) -> dict[str, Expression]:
    """Return the rules of a grammar that are used, the first one first, as llama.cpp can read them."""
    if len(grammar) > MOST_LARK_CHARACTERS:
        raise Untranslatable(f"it has more than {MOST_LARK_CHARACTERS} characters")
    rules = parse_lark(grammar)
    if _START not in rules:
        raise InvalidSyntax(f"there is no rule '{_START}'")
    if IGNORED in rules:
        rules[_WHOLE] = sequence([RuleReference(IGNORED), RuleReference(_START)])
    used = used_rules(rules, _WHOLE if IGNORED in rules else _START)
    plain = {name: without_simple_recursion(name, without_nul(body)) for name, body in used.items()}
    try:
        found = without_endless_rules(plain)
    except Untranslatable:
        without_endless_rules(used)  # which says why, where it is not because of NUL
        raise Untranslatable("it needs the character NUL, which ends a text for llama.cpp") from None
    refuse_left_recursion(found)
    return found


def _named(rules: dict[str, Expression]) -> dict[str, Expression]:
    """Return rules with names as GBNF takes them, the first of which is root."""
    names: dict[str, str] = {}
    for name in rules:
        plain = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-") or "rule"
        known = set(names.values()) | {_ROOT}
        names[name] = plain if plain not in known else f"{plain}-{len(names)}"
    names[next(iter(rules))] = _ROOT
    return {names[name]: _renamed(body, names) for name, body in rules.items()}


def _renamed(expression: Expression, names: dict[str, str]) -> Expression:
    if isinstance(expression, RuleReference):
        return RuleReference(names[expression.name])
    return mapped(expression, lambda each: _renamed(each, names))
