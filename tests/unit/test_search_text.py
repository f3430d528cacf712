"""How a text is folded to one spelling, and which grams it has."""


# ruff: noqa: RUF001 - letters that look like others are part of the test

from __future__ import annotations

import pytest

from mistral_api.conversations.search_text import MAX_SEARCHED_CHARACTERS, fold, search_columns, searchable_text


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Plain  ASCII\n\ttext ", "plain ascii text"),
        ("ÉCOLE e\u0301cole", "ecole ecole"),
        ("Straße STRASSE", "strasse strasse"),
        ("ΖΕΒΡΑ ζέβρα", "ζεβρα " * 2),
        ("финальный", "финальныи"),
        ("ＡＢＣ１", "abc1"),
        ("\uff76\uff9e\uff7d ガス", "ガス ガス"),
        ("한국어", "한국어"),
        ("\u1112\u1161\u11ab", "한"),
        ("\u201cquoted\u201d \u2018it\u2019 \u2014 \u2026", '"quoted" \'it\' - ...'),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("İstanbul ışık", "istanbul isik"),
        ("\ufb01le", "file"),
        ("\u00a0\u3000", ""),
    ],
)  # fmt: skip
def test_spellings_of_one_text_become_one(text: str, folded: str) -> None:
    assert fold(text) == folded.strip()


@pytest.mark.parametrize(
    ("text", "grams"),
    [
        ("plain words only", set()),
        ("main.py of userId", {"py", "of", "id"}),
        ("HTTPServer v2 utf8 /api/v1/", {"v", "2", "v2", "8", "v1", "1"}),
        ("中文", {"中", "文", "中文"}),
        ("中，文", {"中", "文"}),
        ("Зебра он", {"зеб", "ебр", "бра", "он"}),
        ("用py写", {"用", "py", "写"}),
        ("→ 🙂", {"→", "🙂"}),
        ("café", set()),
    ],
)  # fmt: skip
def test_grams_are_what_trigrams_of_ascii_cannot_find(text: str, grams: set[str]) -> None:
    columns = search_columns(text)
    assert columns["search_grams"] is not None
    assert set(columns["search_grams"]) == grams


def test_nothing_has_no_columns() -> None:
    assert search_columns(None) == {"search_text": None, "search_grams": None}
    assert searchable_text("") is searchable_text(None) is searchable_text([]) is None


def test_long_texts_are_cut() -> None:
    assert len(searchable_text("x" * (MAX_SEARCHED_CHARACTERS + 1)) or "") == MAX_SEARCHED_CHARACTERS
