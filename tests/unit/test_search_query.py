"""The text of a search box as a query: its syntax, and what it finds."""

from __future__ import annotations

import pytest

from mistral_api.conversations.search_query import SearchedText, parse_search
from tests.support.searches import FOUND, NOT_FOUND


@pytest.mark.parametrize(("text", "search"), FOUND)
def test_text_is_found(text: str, search: str) -> None:
    assert parse_search(search).matches(SearchedText(text))


@pytest.mark.parametrize(("text", "search"), NOT_FOUND)
def test_text_is_not_found(text: str, search: str) -> None:
    assert not parse_search(search).matches(SearchedText(text))


@pytest.mark.parametrize(
    ("search", "alternatives"),
    [
        ("one two", [["one", "two"]]),
        ("one or two three", [["one"], ["two", "three"]]),
        ("one OR two", [["one"], ["two"]]),
        ("or one", [["or", "one"]]),
        ("one or", [["one", "or"]]),
        ("one or or two", [["one"], ["two"]]),
        ("one -two", [["one", "-two"]]),
        ('-"one two"', [["-one two"]]),
        ('"one  two', [["one two"]]),
        ('"or"', [["or"]]),
        ("\u201cone two\u201d", [["one two"]]),
        ("--verbose", [["--verbose"]]),
        ("(one), two. three?", [["one", "two", "three"]]),
        ("c++ a.b/c", [["c++", "a.b/c"]]),
        ('- -- ... "" , "!"', []),
        ("", []),
        ("   ", []),
    ],
)
def test_syntax(search: str, alternatives: list[list[str]]) -> None:
    parsed = [
        [f"{'-' * term.negated}{' '.join(word.text for word in term.words)}" for term in terms]
        for terms in parse_search(search).alternatives
    ]
    assert parsed == alternatives
