"""Regular expressions in the words that llama.cpp understands."""

from __future__ import annotations

from typing import TypeAlias

from mistral_api.grammars.automaton import build_automaton, read_text
from mistral_api.grammars.characters import ALL, LAST_LOOKED_AT, CharacterSet
from mistral_api.grammars.elimination import as_expression, as_rules
from mistral_api.grammars.errors import TooSlow, Untranslatable
from mistral_api.grammars.expression import (
    ANY_TEXT,
    NOTHING,
    Characters,
    End,
    Expression,
    Look,
    RuleReference,
    has_assertions,
    is_nullable,
    mapped,
    repeat,
    sequence,
    walk,
)
from mistral_api.grammars.gbnf import without_nul, write_grammar, write_pattern
from mistral_api.grammars.json_text import as_json_text
from mistral_api.grammars.lengths import fit_length
from mistral_api.grammars.minimal import Automaton
from mistral_api.grammars.neighbours import resolve_conditions
from mistral_api.grammars.pattern_parser import Dialect, parse_pattern
from mistral_api.grammars.sized_cache import SizedCache
from mistral_api.grammars.time_limit import bounded, check_time

_Demand: TypeAlias = Expression | Automaton | Untranslatable
# What a set of characters takes, and each of its ranges: tuples and numbers.
_BYTES = 200


@bounded
def json_string_pattern(pattern: str, *, min_length: int = 0, max_length: int | None = None) -> str:
    """Return the ``pattern`` of a JSON schema that llama.cpp's converter enforces as ``pattern`` means it.

    ``pattern`` is a JSON schema's: it may match anywhere in the string. The returned one describes the text between the
    quotes of a JSON string, with its escapes, and begins with ``^`` and ends with ``$``. ``min_length`` and
    ``max_length`` are those of the schema, in characters: llama.cpp ignores them beside a pattern, so they have to be
    left out of the schema then.

    Raises Untranslatable.
    """
    found = _demanded(pattern, min_length, max_length)
    return write_pattern(as_json_text(as_expression(found) if isinstance(found, Automaton) else found))


@bounded
def json_string_rules(name: str, pattern: str, *, min_length: int = 0, max_length: int | None = None) -> str:
    """Return what :func:`json_string_pattern` says as rules in GBNF, without the quotes of the string.

    They can say more, since a rule stands once and may lead to itself. The first rule has this name, and the names of
    the others begin with it. Raises Untranslatable.
    """
    found = _demanded(pattern, min_length, max_length)
    if isinstance(found, Automaton):
        return write_grammar(_json_rules(as_rules(found, name), name))
    return write_grammar({name: as_json_text(found)})


def _json_rules(rules: dict[str, Expression], name: str) -> dict[str, Expression]:
    """Return the rules of an automaton for JSON texts. A set of characters with escapes is a rule of its own."""
    classes: dict[Expression, str] = {}
    found: dict[str, Expression] = {}
    for rule, body in rules.items():
        check_time()
        for each in walk(body):
            if isinstance(each, Characters) and not isinstance(as_json_text(each), Characters):
                classes.setdefault(each, f"{name}-c{len(classes)}")
        found[rule] = as_json_text(_with_references(body, classes))
    return found | {rule: as_json_text(each) for each, rule in classes.items()}


def _with_references(expression: Expression, classes: dict[Expression, str]) -> Expression:
    if isinstance(expression, Characters) and expression in classes:
        return RuleReference(classes[expression])
    return mapped(expression, lambda each: _with_references(each, classes))


@bounded
def whole_string_pattern(pattern: str) -> str:
    """Return the ``pattern`` that a client's JSON schema would have for an expression that must match the whole string.

    That is the ``regex`` grammar of a custom tool, whose text is a string of a function's arguments. It is still to be
    given to :func:`json_string_pattern`. Raises Untranslatable.
    """
    return write_pattern(plain_expression(without_nul(parse_pattern(pattern, Dialect.TEXT))))


@bounded
def text_grammar(pattern: str) -> str:
    """Return a grammar in GBNF of the texts that an expression matches as a whole. Raises Untranslatable."""
    expression = without_nul(parse_pattern(pattern, Dialect.TEXT))
    resolved = resolve_conditions(expression)
    if resolved is None:
        return write_grammar(as_rules(build_automaton(expression), "root"))
    return write_grammar({"root": _possible(resolved)})


@bounded
def pattern_matches(pattern: str, text: str) -> bool:
    """Return whether a ``pattern`` of a JSON schema matches anywhere in a text, as ECMA-262 says.

    It takes as long as the text is long, whatever the pattern: no way is tried twice. Raises Untranslatable where the
    pattern is not understood, or has too many states, and for texts of which it cannot be said.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Untranslatable("half of a surrogate pair is no character")
    if ("\\p" in pattern or "\\P" in pattern) and any(ord(letter) > LAST_LOOKED_AT for letter in text):
        raise Untranslatable(f"of characters beyond U+{LAST_LOOKED_AT:X} no property is known")
    found = _search(pattern)
    return found.accepts(text) if isinstance(found, Automaton) else read_text(found, text)


def _search(pattern: str) -> Automaton | Expression:
    """Return the automaton of the texts in which a pattern matches; their expression where that has none."""
    found = _searches.find(pattern)
    if found is None:
        found = _new_search(pattern)
        _searches.add(pattern, found)
    return found


def _new_search(pattern: str) -> Automaton | Expression:
    found = sequence([ANY_TEXT, parse_pattern(pattern, Dialect.ECMASCRIPT), ANY_TEXT])
    try:
        return build_automaton(found)
    except TooSlow:
        raise
    except Untranslatable:
        return found


def _size(key: tuple[str, int, int | None] | str, found: _Demand) -> int:
    """Return about how many bytes something remembered takes."""
    pattern = key if isinstance(key, str) else key[0]
    if isinstance(found, Automaton):
        sets = [allowed for moves in found.moves for allowed in moves.values()]
    elif isinstance(found, Untranslatable):
        sets = []
    else:
        sets = [each.allowed if isinstance(each, Characters) else CharacterSet() for each in walk(found)]
    return _BYTES * (1 + len(sets) + sum(len(each.ranges) for each in sets)) + 4 * len(pattern)


_demands: SizedCache[tuple[str, int, int | None], _Demand] = SizedCache(_size)
_searches: SizedCache[str, Automaton | Expression] = SizedCache(_size)


def _demanded(pattern: str, min_length: int, max_length: int | None) -> Expression | Automaton:
    """Return what the strings are that a pattern matches anywhere, and that are as long.

    It is an automaton where the conditions on places cannot be said in an expression. Raises Untranslatable.
    """
    key = pattern, min_length, max_length
    found = _demands.find(key)
    if found is None:
        found = _new_demand(*key)
        _demands.add(key, found)
    if isinstance(found, Untranslatable):
        raise Untranslatable(found.reason) from found
    return found


def _new_demand(pattern: str, min_length: int, max_length: int | None) -> _Demand:
    """Return what is demanded, or why it cannot be said: that may take as long to find out."""
    try:
        found = _searched(pattern, min_length, max_length)
        return build_automaton(found) if has_assertions(found) else _possible(found)
    except TooSlow:
        raise
    except Untranslatable as error:
        return error


def _searched(pattern: str, min_length: int, max_length: int | None) -> Expression:
    """Return an expression of a whole string, which has conditions on places where only an automaton can tell."""
    found = parse_pattern(pattern, Dialect.JSON_SCHEMA)
    has_conditions = has_assertions(found)
    found = ANY_TEXT if not has_conditions and is_nullable(found) else sequence([ANY_TEXT, found, ANY_TEXT])
    resolved = resolve_conditions(found)
    if min_length <= 0 and max_length is None:
        return found if resolved is None else resolved
    fitting = None if resolved is None else fit_length(resolved, min_length, max_length)
    if fitting is not None:
        return fitting
    length = sequence([repeat(Characters(ALL), min_length, max_length), End()])
    return sequence([Look(length, ahead=True, negative=False), found])


def plain_expression(expression: Expression) -> Expression:
    """Return an expression for whole texts without conditions on places.

    Raises Untranslatable where it becomes too long, or nothing matches it.
    """
    resolved = resolve_conditions(expression)
    if resolved is not None:
        return _possible(resolved)
    return as_expression(build_automaton(expression))


def _possible(expression: Expression) -> Expression:
    if expression == NOTHING:
        raise Untranslatable("no text matches it")
    return expression
