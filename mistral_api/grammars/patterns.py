"""Regular expressions in the words that llama.cpp understands."""

from __future__ import annotations

from functools import lru_cache

from mistral_api.grammars.automaton import build_automaton
from mistral_api.grammars.characters import ALL
from mistral_api.grammars.elimination import as_expression, as_rules
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.expression import (
    ANY_TEXT,
    NOTHING,
    Characters,
    End,
    Expression,
    Look,
    has_assertions,
    is_nullable,
    repeat,
    sequence,
)
from mistral_api.grammars.gbnf import without_nul, write_decoded_pattern, write_grammar, write_pattern
from mistral_api.grammars.json_text import as_json_text
from mistral_api.grammars.lengths import fit_length
from mistral_api.grammars.neighbours import resolve_conditions
from mistral_api.grammars.pattern_parser import Dialect, parse_pattern

# An expression that is made of more states than these is too long for a pattern.
_MOST_PATTERN_STATES = 400
_REMEMBERED = 256


def json_string_pattern(pattern: str, *, min_length: int = 0, max_length: int | None = None) -> str:
    """Return the ``pattern`` of a JSON schema that llama.cpp's converter enforces as ``pattern`` means it.

    ``pattern`` is a JSON schema's: it may match anywhere in the string. The returned one describes the text between the
    quotes of a JSON string, with its escapes, and begins with ``^`` and ends with ``$``. ``min_length`` and
    ``max_length`` are those of the schema, in characters: llama.cpp ignores them beside a pattern, so they have to be
    left out of the schema then.

    Raises Untranslatable.
    """
    return write_pattern(as_json_text(_string_expression(pattern, min_length, max_length)))


def json_string_rules(name: str, pattern: str, *, min_length: int = 0, max_length: int | None = None) -> str:
    """Return what :func:`json_string_pattern` says as rules in GBNF, without the quotes of the string.

    The first rule has this name, and the names of the others begin with it. Raises Untranslatable.
    """
    return write_grammar({name: as_json_text(_string_expression(pattern, min_length, max_length))})


def decoded_pattern(pattern: str, *, min_length: int = 0, max_length: int | None = None) -> str:
    """Return a pattern for a llama.cpp that uses llguidance, which compares the decoded value of the string.

    The bundled engine does so for ``json_schema`` of ``/completion``; what it cannot read, such as a lookahead, it
    ignores without a word. Raises Untranslatable.
    """
    return write_decoded_pattern(_string_expression(pattern, min_length, max_length))


def whole_string_pattern(pattern: str) -> str:
    """Return what :func:`json_string_pattern` returns, for an expression that must match the whole text.

    That is the ``regex`` grammar of a custom tool whose text is a string inside the arguments of a function.
    Raises Untranslatable.
    """
    return write_pattern(as_json_text(plain_expression(parse_pattern(pattern, Dialect.TEXT))))


def text_grammar(pattern: str) -> str:
    """Return a grammar in GBNF of the texts that an expression matches as a whole. Raises Untranslatable."""
    expression = without_nul(parse_pattern(pattern, Dialect.TEXT))
    resolved = resolve_conditions(expression)
    if resolved is None:
        return write_grammar(as_rules(build_automaton(expression), "root"))
    return write_grammar({"root": _possible(resolved)})


@lru_cache(_REMEMBERED)
def _string_expression(pattern: str, min_length: int, max_length: int | None) -> Expression:
    """Return what the strings are that a pattern matches anywhere, and that are as long."""
    found = parse_pattern(pattern, Dialect.JSON_SCHEMA)
    if not has_assertions(found):
        found = ANY_TEXT if is_nullable(found) else sequence([ANY_TEXT, found, ANY_TEXT])
    else:
        found = sequence([ANY_TEXT, found, ANY_TEXT])
    if min_length <= 0 and max_length is None:
        return plain_expression(found)
    resolved = resolve_conditions(found)
    fitting = None if resolved is None else fit_length(resolved, min_length, max_length)
    if fitting is not None:
        return _possible(fitting)
    length = sequence([repeat(Characters(ALL), min_length, max_length), End()])
    return plain_expression(sequence([Look(length, ahead=True, negative=False), found]))


def plain_expression(expression: Expression) -> Expression:
    """Return an expression for whole texts without conditions on places.

    Raises Untranslatable where it becomes too long, or nothing matches it.
    """
    resolved = resolve_conditions(expression)
    if resolved is not None:
        return _possible(resolved)
    return as_expression(build_automaton(expression, _MOST_PATTERN_STATES))


def _possible(expression: Expression) -> Expression:
    if expression == NOTHING:
        raise Untranslatable("no text matches it")
    return expression
