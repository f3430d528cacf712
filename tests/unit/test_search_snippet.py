"""The extract of a text that shows where a search hit."""

from __future__ import annotations

import html
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.conversations.search_query import SearchedText, parse_search
from mistral_api.conversations.search_snippet import EXTRACT_LENGTH, make_snippet, match_snippet
from tests.support.searches import FOUND, NOT_FOUND


@pytest.mark.parametrize(
    ("search", "text", "snippet"),
    [
        ("quagga", "A Quagga.", "A <mark>Quagga</mark>."),
        ("bold", '<b>bold</b> & "x"', "&lt;b&gt;<mark>bold</mark>&lt;/b&gt; &amp; &quot;x&quot;"),
        ("id", "hidden userId", "hidden user<mark>Id</mark>"),
        ('"brown stripes"', "a brown,\n stripes", "a <mark>brown, stripes</mark>"),
        ("ecole", "l'e\u0301cole", "l&#x27;<mark>école</mark>"),
        ("strasse", "Straße 5", "<mark>Straße</mark> 5"),
        ("文中", "中文中", "中<mark>文中</mark>"),
        ("zebra bra", "a zebra", "a <mark>zebra</mark>"),
        ("foobar barbaz", "foobarbaz", "<mark>foobarbaz</mark>"),
        ("one or two", "two one", "<mark>two</mark> <mark>one</mark>"),
        ("one -two", "one", "<mark>one</mark>"),
        ("-two", "one", "one"),
        ("softhyphen", "a soft\u00adhyphen", "a <mark>soft\u00adhyphen</mark>"),
    ],
)
def test_hits_are_marked_and_text_is_escaped(search: str, text: str, snippet: str) -> None:
    assert match_snippet(parse_search(search), text) == snippet


def test_no_snippet_of_what_does_not_match() -> None:
    assert match_snippet(parse_search("zebra"), "a horse") is None
    assert match_snippet(parse_search("zebra"), None) is None
    assert all(match_snippet(parse_search(search), text) is None for text, search in NOT_FOUND)


@pytest.mark.parametrize(("text", "search"), [(text, search) for text, search in FOUND if not search.startswith("-")])
def test_whatever_is_found_is_marked(text: str, search: str) -> None:
    snippet = match_snippet(parse_search(search), text)
    assert snippet is not None
    assert snippet.count("<mark>") == snippet.count("</mark>") > 0


def test_extract_is_short_and_shows_most_terms() -> None:
    text = "zebra " + "word " * 100 + "here is a zebra and a quagga " + "word " * 100
    snippet = match_snippet(parse_search("zebra quagga"), text) or ""
    assert "a <mark>zebra</mark> and a <mark>quagga</mark> word" in snippet
    assert snippet.startswith("\u2026word word")
    assert snippet.endswith("word\u2026")
    assert len(re.sub("</?mark>", "", snippet)) <= EXTRACT_LENGTH + 2


_CHARACTERS = st.sampled_from("abAB12 .-_<&\"'\née\u0301ßİф中文カ\uff76\uff9e한\u1112\u1161ี\u00ad\u200d🙂\u2026\ufb03")


@given(text=st.text(_CHARACTERS, max_size=300), search=st.text(_CHARACTERS, min_size=1, max_size=5))
def test_snippet_is_an_extract_of_the_text_in_safe_html(text: str, search: str) -> None:
    snippet = make_snippet(parse_search(search), SearchedText(text))
    plain = re.sub("</?mark>", "", snippet)
    assert not re.search("[<>\"']", plain)
    shown = html.unescape(plain).removeprefix("\u2026").removesuffix("\u2026")
    assert len(shown) <= EXTRACT_LENGTH
    normalized = " ".join(SearchedText(text).normalized.split())
    assert shown.strip() in normalized or unicodedata.normalize("NFC", shown.strip()) in normalized
