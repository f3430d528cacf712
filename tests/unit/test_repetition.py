"""How many repetitions of an expression may take the same character one after the other."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.wire.repetition import parse_grammar, pattern_ambiguity, pattern_loops

JSON_GRAMMAR = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20} # a comment (with "marks
"""


@pytest.mark.parametrize(
    ("grammar", "loops"),
    [
        ('root ::= "a" | "b"', 0),
        ("root ::= [a-z]*", 1),
        ("root ::= [a-z]* [a-z]*", 2),
        ('root ::= [a-z]* "." [a-z]*', 1),
        ('root ::= [a-z]* "."? [a-z]*', 2),
        ('root ::= [a-z]+ "x" [a-z]+', 2),
        ("root ::= [a-z]* [0-9]* [a-z]*", 2),
        ("root ::= [a-z]{0,100} [a-z]{3,}", 2),
        ("root ::= [a-z]{0,3} [a-z]{2}", 0),
        ("root ::= a a a\na ::= [a-z]* [a-z]*", 6),
        ("root ::= a\na ::= b b b b b\nb ::= c c c c c\nc ::= [a-z]* [a-z]*", 50),
        ("root ::= ([a-z]* [a-z]*){30}", 60),
        ("root ::= (([a-z]* | [0-9]) ([a-z]*)) [a-z]*", 3),
        ('root ::= x x x\nx ::= [a-z] x | ""', 3),
        ("root ::= [a-z]* # [a-z]* [a-z]*\n", 1),
        ("root ::= . * . *", 2),
        ("root ::= [^a]* [a]*", 1),
        (r'root ::= [\x61-\x7a]* "\x41" [a-z]*', 1),
    ],
)
def test_grammar_has_its_longest_run(grammar: str, loops: int) -> None:
    assert parse_grammar(grammar).ambiguity().loops == loops


def test_grammar_of_json_has_a_short_run() -> None:
    grammar = parse_grammar(JSON_GRAMMAR)
    assert list(grammar.rules) == ["root", "value", "object", "array", "string", "number", "ws"]
    assert grammar.ambiguity().loops <= 6
    assert grammar.most_alternatives() == 5


@pytest.mark.parametrize(
    ("pattern", "loops", "nested"),
    [
        (r"^\d{4}-\d{2}-\d{2}$", 0, False),
        ("^[a-z]*[a-z]*[a-z]*$", 3, False),
        (r"^[\w.+-]+@[\w-]+\.[\w.-]+$", 1, False),
        (r"^(?:[a-z]+/)*[a-z]+$", 1, True),
        ("(a*)*", 2, True),
        (r"\s*\S*\s*", 3, False),
        ("(unclosed", 0, False),
        ("too many) [a-z]*", 1, False),
        ("a{,5}{2}b", 1, False),
        ("[a-z", 0, False),
        ("\\", 0, False),
    ],
)
def test_pattern_has_its_longest_run(pattern: str, loops: int, nested: bool) -> None:
    found = pattern_ambiguity(pattern)
    assert (found.loops, found.nested) == (loops, nested)


def test_nested_counts_are_multiplied() -> None:
    assert pattern_ambiguity("((a{100}b){50}){20}").copies == 100_000


def test_repeated_groups_are_expressions_of_their_own() -> None:
    assert pattern_loops("^x(?:(a|b)+c)*$") == ["(?:(a|b)+c)*", "(a|b)+"]
    assert parse_grammar('root ::= "x" ( "a" | [b] )* "y"').loops() == ['( "a" | [b] )*']


@given(st.text(alphabet='abz019[]()^-*+?{},|\\". \n:=#_<>!$', max_size=200))
def test_any_text_is_judged(text: str) -> None:
    pattern_ambiguity(text)
    pattern_loops(text)
    grammar = parse_grammar(f"root ::= {text}")
    assert grammar.ambiguity().loops >= 0
    grammar.loops()


@given(st.integers(0, 40), st.sampled_from(("[a-z]*", "[a-z]+", "[a-f]{2,}", "(?:[a-z]*)", "(?:[a-z]|0)*")))
def test_run_is_as_long_as_it_is_written(length: int, loop: str) -> None:
    assert pattern_ambiguity(f"^{loop * length}$").loops == length
    assert pattern_ambiguity(f"^{'-'.join([loop] * length)}$").loops == min(length, 1)


def _ring(rules: int, alternatives: int) -> str:
    """Return a grammar of rules that call each other all around."""
    steps = range(alternatives)
    lines = (" | ".join(f"[a-z]* r{(number + step) % rules}" for step in steps) for number in range(rules))
    return "\n".join(f"r{number} ::= {line}" for number, line in enumerate(lines))


@pytest.mark.parametrize(
    "text",
    [
        "root ::= " + "[a-z]* " * 9_000,
        "root ::= " + "(" * 30_000,
        "root ::= " + "(" * 400 + "[a-z]*" + ")*" * 400,
        _ring(300, 20),
        "\n".join(f"r{number} ::= r{number + 1} r{number + 1}" for number in range(60)) + "\nr60 ::= [a-z]*",
    ],
    ids=["long", "open", "deep", "wide", "doubling"],
)  # fmt: skip
def test_judging_takes_little_time(text: str) -> None:
    began = time.process_time()
    parse_grammar(text).ambiguity()
    pattern_ambiguity(text)
    assert time.process_time() - began < 2
