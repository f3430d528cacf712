"""Regular expressions as what llama.cpp enforces: which values they let pass, and what is refused."""

from __future__ import annotations

import json
import re

import pytest

from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.patterns import (
    json_string_pattern,
    json_string_rules,
    pattern_matches,
    text_grammar,
    whole_string_pattern,
)
from tests.support.gbnf_acceptor import GbnfGrammar

# A pattern, values that it matches, and values that it does not.
CASES = [
    ("^abc$", ["abc"], ["", "ab", "abcd", "xabc", "ABC"]),
    ("b", ["b", "abc", '\n\\b"'], ["", "a", "B"]),
    ("", ["", "a\nb"], []),
    ("^a", ["a", "ab\n"], ["", "ba"]),
    ("a$", ["a", "ba"], ["", "ab"]),
    ("^a|b$", ["a", "ax", "b", "xb"], ["xa", "bx"]),
    (r"^\d{2,3}$", ["12", "123"], ["1", "1234", "٣٣", "ab"]),
    (r"^\D+$", ["ab", "é-\n"], ["", "a1", "٣"]),
    (r"^\w+$", ["a_Z9"], ["", "a-b", "é"]),
    (r"^\W+$", ["-+ ", "…€🙂、"], ["a", "_", "é", "語"]),
    (r"^\s$", [" ", "\t", "\n", "\u00a0", "\u3000"], ["", "a", "\x1c", "\ufeff"]),
    (r"^\S+$", ["a\\b", '"', "é"], ["a b", "\n", "\x85"]),
    ("^.+$", ['a"b\\c', "é🙂", "\t"], ["", "a\nb", "\u2028"]),
    (r"^[\s\S]$", ["\n", "a", "\x1c", "\ufeff"], ["", "ab"]),
    ("^[^x]$", ["a", '"', "\\", "\n", "\x00", "\x7f", "é"], ["x", ""]),
    (r'^["\\/\n]{4}$', ['"\\/\n'], ["abcd"]),
    (r"^[\]\[^-]+$", ["]", "[", "^", "-", "^-]["], ["a", "\\"]),
    (r"^[a\-z]+$", ["a-z"], ["b"]),
    (r"^[\w.-]+$", ["a.b-c_1"], ["a b"]),
    (r"^[^\W\d_]+$", ["abC"], ["a1", "_", "é", "-"]),
    (r"^\x41\u00e9\u{1F642}\cJ\0\/\-\.$", ["Aé🙂\n\0/-."], ["A"]),
    (r"^\ud83d\ude42$", ["🙂"], ["\ufffd"]),
    (r"^\p{Lu}\p{Ll}+\P{L}$", ["Émile!"], ["émile!", "Emile"]),
    ("^(ab|c(?:d|e))+$", ["ab", "cd", "abce"], ["", "c", "abc"]),
    ("^(?P<year>a)(?<month>b)$", ["ab"], ["a"]),
    ("^(|a)(|b)c$", ["c", "ac", "bc", "abc"], ["ab"]),
    ("^a*?b+?c??d{2}?$", ["bdd", "aabbcdd"], ["add"]),
    ("^a*+b$", ["b", "aab"], ["a"]),
    ("^a{1,2}+b$", ["ab", "aab"], ["b", "aaab"]),
    ("^(?>a+)b$", ["aab"], ["aa"]),
    ("(?i)^straße K$", ["STRAßE k", "straße K"], ["strasse k", "straße \u212a"]),
    ("^a(?i:b)c$", ["abc", "aBc"], ["Abc", "abC"]),
    ("^(?s:.)(?s).$", ["\n\n"], ["a"]),
    ("(?m)^b$", ["b", "a\nb", "a\nb\nc"], ["ab", "a\nbc"]),
    ("(?x)^ a  # one\n b $", ["ab"], ["a b"]),
    ("^{a}$", ["{a}"], ["a"]),
    ("^(a$|b)", ["a", "b", "bc"], ["ac"]),
    ("(^|,)a(,|$)", ["a", "a,b", "b,a", "b,a,c"], ["ab", "b,ab"]),
    (r"\bfoo\b", ["foo", "a foo.", "-foo"], ["food", "foo1", "_foo", "fooé"]),
    (r"^a\Bb$", ["ab"], ["a"]),
    ("^(?!admin$).+$", ["adm", "admins", "x"], ["admin", ""]),
    ("^(?=.*[A-Z])(?=.*[0-9]).{3,}$", ["A1x", "x1A", "9xxB"], ["A1", "abc", "ab1", "ABC"]),
    ("^(?:(?!foo).)*$", ["", "fo", "bar"], ["foo", "xfooy"]),
    ("(?<=a)b", ["ab", "xab"], ["b", "cb"]),
    ("(?<!a)b", ["b", "cb", "abb"], ["ab", "a"]),
    ("(?<=^|,)b(?=,|$)", ["b", "a,b", "b,c"], ["ab", "bc"]),
    ("^(?!-)[a-z-]{1,10}(?<!-)$", ["a", "a-b"], ["-a", "a-", ""]),
    (r"^(?!.*\.\.)[a-z.]+$", ["a.b", "."], ["a..b"]),
    (r"^(?!\d+$)\w+$", ["a1", "1a"], ["11"]),
    ("^a{0,2500}$", ["", "a" * 2500], ["a" * 2501, "b"]),
    ("^(?:ab){2001}$", ["ab" * 2001], ["ab" * 2000, "ab" * 2002]),
    ("^" + "(?:a" * 55 + "b" + "c){1,2}" * 55 + "$", ["a" * 55 + "b" + "c" * 55], ["ab"]),
    ("^$", [""], ["a", "\n"]),
]
# A pattern that is refused, and a part of the reason.
REFUSED = [
    (r"^(a)\1$", r"'\1'"),
    (r"(?P<x>a)(?P=x)", "(?P=x)"),
    (r"\k<x>", r"'\k'"),
    ("(?R)", "(?R)"),
    ("(a)?(?(1)b|c)", "(?("),
    ("(?>ab|a)c", "gives nothing back"),
    ("(?:ab)*+c", "gives nothing back"),
    ("(a", "'(' is not closed"),
    ("a)", "')' closes nothing"),
    ("[a", "'[' is not closed"),
    ("[]a]", "begins with ']'"),
    ("[a&&b]", "'&&'"),
    ("[[:alpha:]]", "'[:'"),
    ("[z-a]", "'z-a'"),
    ("*a", "before '*'"),
    ("a**", "a repetition is repeated"),
    ("a{3,2}", "'a{3,2}'"),
    ("a{,3}", "'{,3}'"),
    ("a{9999999}", "repeats too often"),
    ("^a{200000}$", "repeats too often"),
    ("^(?:a{3000}b){3000}$", "as often"),
    (r"\q", r"'\q'"),
    ("\\", "backslash"),
    (r"\ud83d", "no character"),
    (r"\p{Greek}", "Greek"),
    ("a^", "no text matches"),
    ("$a", "no text matches"),
    ("(?=a)b", "no text matches"),
    ("^a*+a$", "no text matches"),
    ("(" * 70 + ")" * 70, "nested deeper"),
    (r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d).{8,64}$", "too"),
    ("(?<=a$)b", "lookbehind"),
    ("(?z)a", "(?z)"),
]


def as_json(value: str) -> str:
    """Return a value as it stands between the quotes of a JSON string; the way that is never refused."""
    return json.dumps(value, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")


def allowed(translated: str, value: str) -> bool:
    """Return whether a translated pattern lets a value pass. Its language is one that Python reads the same way."""
    assert (translated[0], translated[-1]) == ("^", "$")
    return re.fullmatch(translated[1:-1], as_json(value)) is not None


@pytest.mark.parametrize(("pattern", "matching", "others"), CASES, ids=[case[0][:40] for case in CASES])
def test_pattern_lets_pass_what_it_matches_and_nothing_else(
    pattern: str, matching: list[str], others: list[str]
) -> None:
    translated = json_string_pattern(pattern)
    assert [value for value in matching if not allowed(translated, value)] == []
    assert [value for value in others if allowed(translated, value)] == []
    rules = GbnfGrammar(json_string_rules("text", pattern))
    assert all(rules.accepts(as_json(value), "text") for value in matching if len(value) < 200)
    assert not any(rules.accepts(as_json(value), "text") for value in others if len(value) < 200)


@pytest.mark.parametrize(("pattern", "reason"), REFUSED, ids=[case[0][:40] for case in REFUSED])
def test_what_cannot_be_said_is_refused_with_its_reason(pattern: str, reason: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        json_string_pattern(pattern)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("pattern", "least", "most", "matching", "others"),
    [
        ("^[a-z]+$", 3, 5, ["abc", "abcde"], ["ab", "abcdef", "ABC"]),
        ("^[a-z][a-z0-9-]*$", 0, 4, ["a", "a-1b"], ["", "1", "abcde"]),
        ("a", 2, 3, ["ab", "ba", "bab"], ["a", "bb", "abcd"]),
        ("", 1, 2, ["é", "🙂🙂"], ["", "🙂🙂🙂"]),
        ("^(a|bc*)$", 2, 3, ["bc", "bcc"], ["a", "b", "bccc"]),
        ("^(foo|bar)+$", 4, 7, ["foobar"], ["foo", "foobarfoo"]),
        (r"^\d+(\.\d+)?$", 3, 4, ["1.5", "1234", "123"], ["12", "12345", "1."]),
        (r'^["\n]*$', 2, 2, ['"\n'], ['"', '"\n"']),
        ("^a*$", 0, 5000, ["", "a" * 5000], ["a" * 5001]),
    ],
)
def test_lengths_are_counted_in_characters_of_the_value(
    pattern: str, least: int, most: int, matching: list[str], others: list[str]
) -> None:
    translated = json_string_pattern(pattern, min_length=least, max_length=most)
    assert [value for value in matching if not allowed(translated, value)] == []
    assert [value for value in others if allowed(translated, value)] == []


def test_rules_say_what_is_too_long_for_a_pattern() -> None:
    pattern = r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d).{8,64}$"
    rules = GbnfGrammar(json_string_rules("text", pattern))
    assert all(rules.accepts(as_json(value), "text") for value in ("aB3" + "." * 5, '"' * 61 + "aB3"))
    assert not any(rules.accepts(as_json(value), "text") for value in ("aB3....", "ab3.....", '"' * 62 + "aB3"))


def test_length_that_no_match_has_is_refused() -> None:
    with pytest.raises(Untranslatable, match="no text matches"):
        json_string_pattern("^abc$", min_length=4)
    with pytest.raises(Untranslatable, match="no text matches"):
        json_string_pattern("(?=abc).*x", max_length=2)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("[a-z]+", ["abc"], ["", "ABC", "abc "]),
        (r"^(?P<month>\w+) \d{1,2}$", ["July 14"], ["July", "July 144"]),
        (".*", ["", 'a\rb"\\'], ["a\nb"]),
        (r'say "\\n"\n', ['say "\\n"\n'], ["say"]),
        ("a{,3}", ["", "aaa"], ["aaaa"]),
        ("(?!b).x", ["ax"], ["bx"]),
        (r"\w+ \w+\b.", ["Grüße Мир.", "世界 ok!"], ["a b", "- a."]),
        (r"\bfoo\b", ["foo"], ["food"]),
        (r"(?:(?!\*/).)*\*/", ["a*/", "*/"], ["*/*/"]),
        ("(?:ab[0-9]{1,3}){2,500}", ["ab1ab22"], ["ab1", "ab1ab4444"]),
        ("", [""], ["a"]),
        ("(?=.*a)(?:[ab]{2})?(?<=b)", ["ab"], ["", "aa", "bb"]),
        ("(a{1000}b){3}", ["".join(["a" * 1000 + "b"] * 3)], ["ab"]),
    ],
)
def test_text_grammar_takes_the_whole_text(pattern: str, matching: list[str], others: list[str]) -> None:
    grammar = GbnfGrammar(text_grammar(pattern))
    assert [text for text in matching if not grammar.accepts(text)] == []
    assert [text for text in others if grammar.accepts(text)] == []
    translated = json_string_pattern(whole_string_pattern(pattern))
    assert [text for text in matching if not allowed(translated, text)] == []
    assert [text for text in others if allowed(translated, text)] == []


def test_no_grammar_reads_the_character_that_ends_a_text() -> None:
    assert not GbnfGrammar(text_grammar("[^x]")).accepts("\0")
    with pytest.raises(Untranslatable):
        text_grammar(r"\0")


@pytest.mark.parametrize("pattern", ["^[a-z]+$", r"^\d{3}-\d{4}$", "^(a|b|cd)$", r"^[\w.]+@[\w.]+\.[a-z]{2,}$"])
def test_simple_pattern_stays_short(pattern: str) -> None:
    assert len(json_string_pattern(pattern)) < 3 * len(pattern)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (r"^\d$", ["7"], ["\u0663", "", "77"]),
        (r"^\D$", ["\u0663", "a"], ["7"]),
        (r"^\w+$", ["a_9"], ["é"]),
        (r"^\S$", ["\x1c", "\x85"], ["\ufeff", " "]),
        ("^.$", ["a", "\x85", "🙂"], ["\n", "\r", "\u2028"]),
        ("^a$", ["a"], ["a\n", "\na"]),
        ("a", ["xax"], ["x", ""]),
        ("", ["", "a"], []),
        (r"\B", ["", "ab"], ["a"]),
        (r"^\p{L}+$", ["é", "a"], ["1"]),
        ("(?<!b)a(?!b)", ["a", "aab"], ["ab", "ba"]),
        ("(?!)", [], ["", "a"]),
        ("^.{1,3000}$", ["a" * 3_000], ["", "a" * 3_001]),
        ("^(a+)+$", ["a" * 5_000], ["a" * 5_000 + "!"]),
        ("(a|b)*a(a|b){14}$", ["a" + "b" * 14], ["b" * 15]),
    ],
)
def test_pattern_of_a_schema_is_searched_for_as_javascript_does(
    pattern: str, matching: list[str], others: list[str]
) -> None:
    assert [text for text in matching + others if pattern_matches(pattern, text)] == matching


@pytest.mark.parametrize(("pattern", "text"), [("(", "a"), (r"(a)\1", "aa"), ("a", "\ud800"), (r"\p{L}", "\U00020000")])
def test_what_cannot_be_searched_for_is_refused(pattern: str, text: str) -> None:
    with pytest.raises(Untranslatable):
        pattern_matches(pattern, text)
