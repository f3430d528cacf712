"""What the translation of large constraints costs: inputs that once took up to minutes, and work that is counted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from mistral_api.grammars import characters
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.lark import lark_text_grammar
from mistral_api.grammars.patterns import json_string_pattern, text_grammar, whole_string_pattern

# Once 9 seconds at least, and up to minutes: the time grew with the square.
_GENEROUS_SECONDS = 4.0


def _apart(count: int) -> str:
    """Return the members of a class in which no two are neighbours."""
    return "".join(chr(0x100 + 2 * number) for number in range(count))


@pytest.mark.parametrize(
    ("translate", "constraint"),
    [
        (json_string_pattern, f"[{_apart(4_090)}]"),
        (json_string_pattern, f"(?i)[{_apart(4_090)}]"),
        (whole_string_pattern, f"[{_apart(8_000)}]"),
        (text_grammar, f"[{_apart(30_000)}]"),
        (text_grammar, "[" + r"\W" * 30_000 + "]"),
        (text_grammar, "(?i)" + r"[\wa]" * 5_000),
        (text_grammar, r"\w\d" * 16_000),
        (lark_text_grammar, f"start: /[{_apart(3_000)}]/"),
        (lark_text_grammar, "start: " + "|".join(f'"word{number}"i' for number in range(3_000))),
    ],
    ids=["class", "class without case", "regex", "text", "classes", "words", "long", "lark", "lark words"],
)
def test_large_constraint_costs_little(translate: Callable[[str], str], constraint: str) -> None:
    started = time.thread_time()
    with contextlib.suppress(Untranslatable):  # some are too long for llama.cpp
        translate(constraint)
    assert time.thread_time() - started < _GENEROUS_SECONDS


def test_class_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    from_ranges = characters.from_ranges

    def counted(ranges: list[tuple[int, int]]) -> characters.CharacterSet:
        found = list(ranges)
        sizes.append(len(found))
        return from_ranges(found)

    monkeypatch.setattr(characters, "from_ranges", counted)
    json_string_pattern(f"^[{_apart(1_000)}]$")
    assert sum(sizes) < 40_000


def test_case_is_ignored_in_every_letter_of_a_class() -> None:
    assert json_string_pattern("(?i)^[k-mé]$") == "^[K-Mk-mÉé]$"
