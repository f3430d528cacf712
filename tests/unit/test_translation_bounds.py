"""Constraints that are written to take long: the translation of each one ends, and what is remembered has a limit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Set

import pytest

from mistral_api.grammars import patterns, rules
from mistral_api.grammars.automaton import build_automaton
from mistral_api.grammars.characters import of
from mistral_api.grammars.errors import TooSlow, Untranslatable
from mistral_api.grammars.expression import Characters, Expression, RuleReference, literal, repeat, sequence
from mistral_api.grammars.lark import lark_pattern, lark_text_grammar
from mistral_api.grammars.lark_parser import MOST_RULES
from mistral_api.grammars.minimal import smallest
from mistral_api.grammars.patterns import json_string_pattern, pattern_matches, text_grammar
from mistral_api.grammars.sized_cache import SizedCache
from mistral_api.grammars.time_limit import check_time, time_limit

# Each of them took from 13 s to longer than anyone waits.
_MOST_SECONDS = 10
_LETTERS = "".join(chr(0x4E00 + 2 * number) for number in range(10_000))
_DOUBLING = "".join(f"A{number}: A{number + 1} A{number + 1}\n" for number in range(60))
HOSTILE: list[tuple[Callable[[str], object], str]] = [
    (text_grammar, "a?" * 2_900 + r"\b$"),
    (text_grammar, r"^(?=.{3,2000}$)(?!.*--)[a-z-]{1,2000}$"),
    (text_grammar, f"(?i){_LETTERS}"),
    (text_grammar, f"(?!ab)[{_LETTERS}]"),
    (text_grammar, "|".join(_LETTERS)),
    (text_grammar, "(a?|b?)" * 40 + "(?<!x)"),
    (lambda pattern: pattern_matches(pattern, "a" * 5_000 + "!"), "^(a+)+$"),
    (lambda pattern: pattern_matches(pattern, "ab" * 5_000), "(a|b)*a(a|b){200}$"),
    (lark_text_grammar, f'start: A0\n{_DOUBLING}A60: "a"\n%ignore A0'),
    (lark_pattern, f'start: A0\n{_DOUBLING}A60: "a"'),
]


@pytest.mark.parametrize(("translate", "constraint"), HOSTILE)
def test_translation_of_a_hostile_constraint_ends(translate: Callable[[str], object], constraint: str) -> None:
    before = time.thread_time()
    with contextlib.suppress(Untranslatable):
        translate(constraint)
    assert time.thread_time() - before < _MOST_SECONDS


def test_long_chain_of_states_is_merged_with_one_that_reads_the_same() -> None:
    length = 3_000
    # Two chains of the same texts behind different first letters; the last states read the same.
    moves = [{0: 1, 1: length + 1}]
    moves += [{0: state + 1} for state in range(1, length)] + [{}]
    moves += [{0: state + 1} for state in range(length + 1, 2 * length)] + [{}]
    accepting = frozenset((length, 2 * length))
    before = time.thread_time()
    with pytest.raises(Untranslatable, match="too many states"):
        smallest(moves, accepting, [of("a"), of("b")])
    assert time.thread_time() - before < _MOST_SECONDS


def test_states_that_read_the_same_texts_are_one() -> None:
    a, b = Characters(of("a")), Characters(of("b"))
    ways = sequence([repeat(a, 0, 1), repeat(b, 0, 1), literal("c")])
    assert len(build_automaton(ways).moves) == 4
    assert len(build_automaton(sequence([repeat(a, 2, 2), repeat(a)])).moves) == 3


def test_rules_are_looked_at_again_only_where_one_that_they_refer_to_has_changed() -> None:
    length, looks = 2_000, 0
    chain: dict[str, Expression] = {str(number): RuleReference(str(number + 1)) for number in range(length)}
    chain[str(length)] = literal("a")

    def ends(expression: Expression, ending: Set[str]) -> bool:
        nonlocal looks
        looks += 1
        return rules._ends(expression, ending)

    for ordered in (chain, dict(reversed(chain.items()))):
        looks = 0
        assert rules._rules_of_a_kind(ordered, ends) == set(chain)
        assert looks <= 2 * len(chain)


def test_grammar_has_a_limited_number_of_rules() -> None:
    chain = "start: r0\n" + "".join(f"r{number}: r{number + 1}\n" for number in range(MOST_RULES))
    with pytest.raises(Untranslatable, match=f"more than {MOST_RULES} rules"):
        lark_text_grammar(chain)


def test_deep_recursion_is_a_reason_and_no_crash() -> None:
    with pytest.raises(Untranslatable):
        text_grammar("".join(f"(?:a{number})?" for number in range(1_200)) + "(?<!x)")


def test_one_limit_holds_for_all_that_is_translated_within() -> None:
    with time_limit(0), pytest.raises(TooSlow), time_limit(1_000):
        json_string_pattern("^abc$(?<!d)")
    check_time()


def test_what_took_too_long_is_tried_again_and_what_cannot_be_said_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with time_limit(0), pytest.raises(TooSlow):
        json_string_pattern("^once(?!more|again)")
    assert json_string_pattern("^once(?!more|again)")
    for _ in range(2):
        with pytest.raises(Untranslatable, match="what a group has matched"):
            json_string_pattern(r"^(again)\1$")
        monkeypatch.setattr(patterns, "_new_demand", None)  # the second time nothing is translated


def test_results_are_kept_by_their_size() -> None:
    cache: SizedCache[str, str] = SizedCache(lambda key, value: len(key) + len(value), most_bytes=100)
    cache.add("a", "x" * 40)
    cache.add("b", "x" * 40)
    assert cache.find("a")
    cache.add("c", "x" * 40)
    assert [cache.find(key) is not None for key in "abc"] == [True, False, True]
    cache.add("d", "x" * 100)
    assert [cache.find(key) is not None for key in "abcd"] == [True, False, True, False]


def test_large_patterns_do_not_push_the_memory_beyond_its_limit() -> None:
    for number in range(22):
        json_string_pattern(f"^[{_LETTERS[:4_000]}]{{{number}}}$")
    assert 0 < patterns._demands.bytes <= patterns._demands.most_bytes
