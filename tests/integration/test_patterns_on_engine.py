"""Translated patterns and grammars on llama.cpp itself: its converter of JSON schemas, its parser and its sampler."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from mistral_api.grammars.lark import lark_pattern, lark_text_grammar
from mistral_api.grammars.patterns import json_string_pattern, json_string_rules, text_grammar
from tests.support.gbnf_acceptor import GbnfGrammar
from tests.support.sampling import Sampler, running_sampler
from tests.unit.test_lark import CALCULATION, PATCH
from tests.unit.test_patterns import CASES, as_json

SAMPLED = [
    r"^\d{2,3}$",
    "x",
    "^.*$",
    r'^["\\a]{3}$',
    "^[^x]{1,4}$",
    r"\bfoo\b",
    r"^\S+@\w+\.[a-z]{2,}$",
    r"^\W{1,3}$",
    "^(?:(?!fo).)*$",
    "^(?!-)[a-z0-9-]{1,20}(?<!-)$",
    "^(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9]{4,12}$",
    "(?m)^x$",
]
SEEDS = 4


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampler]:
    """llama.cpp on a vocabulary of which every token is possible."""
    with running_sampler(tmp_path_factory.mktemp("model")) as running:
        yield running


def test_the_converter_makes_of_each_pattern_what_it_means(sampler: Sampler) -> None:
    wrong = []
    for pattern, matching, others in CASES:
        grammar = GbnfGrammar(sampler.grammar_of({"type": "string", "pattern": json_string_pattern(pattern)}))
        for value in (*matching, *others):
            if len(value) < 200 and grammar.accepts(f'"{as_json(value)}"', "schema") != (value in matching):
                wrong.append((pattern, value))
    assert wrong == []


@pytest.mark.parametrize("pattern", SAMPLED)
def test_whatever_is_generated_matches_the_pattern(sampler: Sampler, pattern: str) -> None:
    schema = {"type": "string", "pattern": json_string_pattern(pattern)}
    texts = [sampler.json_text(schema, seed) for seed in range(SEEDS)]
    for value in (json.loads(text) for text in texts if text is not None):
        # A validator may be one of Python, or of JavaScript, whose classes are those of ASCII.
        assert re.search(pattern, value), value
        assert re.search(pattern, value, re.ASCII), value


def test_lengths_hold_beside_a_pattern(sampler: Sampler) -> None:
    schema = {"type": "string", "pattern": json_string_pattern(r"\d", min_length=3, max_length=4)}
    texts = [sampler.json_text(schema, seed) for seed in range(SEEDS)]
    values = [json.loads(text) for text in texts if text is not None]
    assert values
    assert all(3 <= len(value) <= 4 and re.search(r"\d", value) for value in values)


def test_pattern_holds_for_a_property_and_the_elements_of_an_array(sampler: Sampler) -> None:
    quoted = {"type": "string", "pattern": json_string_pattern(r'^"\n\d$')}
    items = {"type": "array", "items": quoted, "minItems": 2, "maxItems": 2}
    schema = {"type": "object", "properties": {"one": quoted, "two": items}, "required": ["one", "two"]}
    text = sampler.json_text(schema, seed=1, tokens=400)
    assert text is not None
    found = json.loads(text)
    assert all(re.fullmatch(r'"\n\d', value) for value in (found["one"], *found["two"])), found


def test_converter_reads_a_patch_as_its_grammar_in_lark_does(sampler: Sampler) -> None:
    grammar = GbnfGrammar(sampler.grammar_of({"type": "string", "pattern": json_string_pattern(lark_pattern(PATCH))}))
    patch = '*** Begin Patch\n*** Add File: a"b\\c\n+x\n*** End Patch'
    assert grammar.accepts(f'"{as_json(patch)}"', "schema")
    assert not grammar.accepts(f'"{as_json(patch.replace("+x", "x"))}"', "schema")


@pytest.mark.parametrize(
    "grammar",
    [
        text_grammar(r"\bfo+\b|(?:(?!a)[ab1]){2,5}"),
        text_grammar(r"(?:ab[0-9]{1,3}){2,500}|(?:x{1000}y){0,3}\.|\"\\"),
        'root ::= "\\"" text "\\""\n' + json_string_rules("text", "^(?=.*[A-Z])(?=.*[0-9]).{3,9}$"),
        lark_text_grammar(CALCULATION),
        lark_text_grammar(PATCH),
    ],
    ids=["conditions", "counts", "string", "calculation", "patch"],
)
def test_llama_cpp_takes_our_grammars(sampler: Sampler, grammar: str) -> None:
    known = GbnfGrammar(grammar)
    texts = [text for seed in range(SEEDS) if (text := sampler.text(grammar, seed)) is not None]
    assert all(known.accepts(text) for text in texts), texts
