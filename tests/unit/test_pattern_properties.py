"""Random regular expressions: what their translation lets pass is what Python finds in a text."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.patterns import json_string_pattern, pattern_matches, text_grammar
from tests.support.gbnf_acceptor import GbnfGrammar
from tests.unit.test_patterns import allowed

_CLASSES = (".", "[ab]", "[^a]", "[a-c1]", '["\\\\]', "[^\\w]", "[^\\d-]", "[\\w-]")
_LETTERS = st.sampled_from(["a", "b", "1", "-", "A", " ", '"', "\\\\", "\\n", "/", *_CLASSES])
_ESCAPES = st.sampled_from(["\\d", "\\w", "\\s", "\\D", "\\W", "\\S", "\\x61", "\\u0062"])
_PLACES = st.sampled_from(["^", "$", "\\b", "\\B", "(?<=a)", "(?<!b)", "(?<=a|1)", "(?<!a|-)"])
_COUNTS = st.sampled_from(["", "", "*", "+", "?", "*?", "??", "{2}", "{0,2}", "{1,}"])
_GROUPS = st.sampled_from(["(?:{})", "({})", "(?={})", "(?!{})"])
_TEXTS = st.lists(st.text('ab1-A "\\\n/é', max_size=6), min_size=10, max_size=20)


def _quantified(atom: str, count: str) -> str:
    """Return an atom with a count, where it may have one."""
    is_place = atom in ("^", "$", "\\b", "\\B") or atom.startswith(("(?=", "(?!", "(?<"))
    return atom if is_place else atom + count


def _expressions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    groups = st.builds(str.format, _GROUPS, inner)
    atoms = st.one_of(_LETTERS, _LETTERS, _ESCAPES, _PLACES, groups)
    sequences = st.lists(st.builds(_quantified, atoms, _COUNTS), min_size=1, max_size=4).map("".join)
    return st.lists(sequences, min_size=1, max_size=2).map("|".join)


_PATTERNS = _expressions(_expressions(_LETTERS))


@settings(max_examples=120, deadline=None)
@given(_PATTERNS, _TEXTS)
def test_translation_lets_pass_what_python_finds(pattern: str, texts: list[str]) -> None:
    try:
        translated = json_string_pattern(pattern)
    except Untranslatable as error:
        translated = "^(?!)$"
        if error.reason != "no text matches it":
            return
    for text in texts:
        # Python's classes are those of Unicode, JavaScript's those of ASCII. Only what both match may pass.
        matches = bool(re.search(pattern, text)) and bool(re.search(pattern, text, re.ASCII))
        assert matches or not allowed(translated, text), (pattern, text)
        if matches and _is_undisputed(text, pattern):
            assert allowed(translated, text), (pattern, text)


def _is_undisputed(text: str, pattern: str) -> bool:
    """Return whether all dialects agree on a text.

    Python's ``$`` stands before a last line feed too, and the empty text has no ``\\B`` before Python 3.14.
    """
    return text.isascii() and not text.endswith("\n") and bool(text or "\\B" not in pattern)


@settings(max_examples=60, deadline=None)
@given(_PATTERNS, _TEXTS)
def test_grammar_of_a_text_takes_what_python_matches_as_a_whole(pattern: str, texts: list[str]) -> None:
    try:
        grammar = GbnfGrammar(text_grammar(pattern))
    except Untranslatable:
        return
    for text in texts:
        if _is_undisputed(text, pattern):
            assert grammar.accepts(text) == bool(re.fullmatch(pattern, text)), (pattern, text)


@settings(max_examples=120, deadline=None)
@given(_PATTERNS, _TEXTS)
def test_pattern_of_a_schema_matches_what_python_finds_with_ascii_classes(pattern: str, texts: list[str]) -> None:
    # Python's "$" stands before a last line feed too, and the empty text has no "\\B" before Python 3.14.
    for text in (each + "." for each in texts):
        try:
            matches = pattern_matches(pattern, text)
        except Untranslatable:
            return
        assert matches == bool(re.search(pattern, text, re.ASCII)), (pattern, text)
