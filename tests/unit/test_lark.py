"""Grammars in lark as what llama.cpp enforces."""

from __future__ import annotations

import re

import pytest

from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.lark import lark_pattern, lark_text_grammar
from mistral_api.grammars.patterns import json_string_pattern
from tests.support.gbnf_acceptor import GbnfGrammar
from tests.unit.test_patterns import allowed

# In the form of Codex's apply_patch (codex-rs, tool_apply_patch.lark).
PATCH = """
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
"""
A_PATCH = '*** Begin Patch\n*** Add File: a.py\n+print("\\n")\n+\n*** Update File: b\n@@ f\n-x\n+y\n z\n*** End Patch\n'
# In the form of Codex's exec (codex-rs, CODE_MODE_FREEFORM_GRAMMAR).
SOURCE = r"""
start: pragma_source | plain_source
pragma_source: PRAGMA_LINE NEWLINE SOURCE
plain_source: SOURCE

PRAGMA_LINE: /[ \t]*\/\/ @exec:[^\r\n]*/
NEWLINE: /\r?\n/
SOURCE: /[\s\S]+/
"""
CALCULATION = """
?start: sum
?sum: product
    | sum "+" product   -> add
    | sum "-" product   -> sub
?product: atom
    | product "*" atom  -> mul
?atom: NUMBER           -> number
    | "-" atom          -> neg
    | "(" sum ")"
%import common (NUMBER, WS_INLINE)
%ignore WS_INLINE
"""
# A grammar, texts that fit it, texts that do not, and whether a regular expression can say it.
CASES = [
    (PATCH, [A_PATCH, A_PATCH[:-1]], ["", A_PATCH[:-3], A_PATCH.replace("-x", "x"), "*** Begin Patch\n"], True),
    (SOURCE, ["// @exec: {}\nx", "text(1)\n", "\x1c"], [""], True),
    (CALCULATION, ["1", " 1+2 * -(3.5e1)", "--1-2"], ["", "1+", "(1", "1 2"], False),
    ('start: "a"i~2..3 "x".."z" ["q"] B?\nB.2: "b" | /[c-d]/i', ["aAx", "AAAzqD"], ["ax", "aaaax", "aaw"], True),
    ('start: "a"{2} "b"{1,} "c"{,2}', ["aab", "aabbcc"], ["ab", "aabccc"], True),
    ('start: item | item "," start\nitem: /[a-z]/+ # letters\n// nothing more', ["a", "ab,c"], ["", "a,"], True),
    ('start: "(" start ")" | "x"', ["x", "((x))"], ["(x", ""], False),
    ('start: (\n  "a" |\n  "b"\n)*\n', ["", "abba"], ["c"], True),
    ('start: "\\"\\\\\\n\\x41\\u00e9" /"\\//', ['"\\\nAé"/'], ["A"], True),
    ('start: A B\nA: /a/\nB: /b/ | "c"\n%ignore / +/\n%ignore C\nC: "#"', ["ab", " # a c ", "a#b"], ["a", "a;b"], True),
    ('start: _a-b | WORD\n_a-b: "!"\n%import common.CNAME -> WORD', ["!", "_x1"], ["1"], True),
    ('start: endless | "x"\nendless: "y" endless', ["x"], ["y", "yx"], True),
    ('start: start-1 ~ 2..3\nstart-1: ("a" "b"~2) ~ 1..2', ["abbabb"], ["abb" * 7, "abb"], True),
]
REFUSED = [
    ("", "no rule 'start'"),
    ("start: a", "'a' is not defined"),
    ('start: start2 "x"\nstart2: start', "no text fits"),
    ('start: a "x" | "y"\na: start "z"', "begins with itself"),
    ('start: "a"\nstart: "b"', "defined twice"),
    ("start: /a(?=b)/", "lookahead"),
    (r"start: /(a)\1/", r"\1"),
    ("%declare X\nstart: X", "%declare"),
    ("%import .other (X)\nstart: X", "only 'common'"),
    ("%import common.FOO\nstart: FOO", "'FOO'"),
    ('start: pair{"a"}\npair{x}: x x', "the template 'pair' in line 1"),
    ('start: name{other}\nother: "a"', "template"),
    ('start[stop="x"]: "a"', "options of 'start'"),
    ("start: <|eot|>", "'<' in line 1"),
    ('start: %json { "type": "string" }', "'%json' in line 1"),
    ('start: "a" ~ 3..2', "at most"),
    ('start: "ab".."c"', "'\"c\"'"),
    ('start: "a', "line 1"),
    ('start: ("a"', "line 1"),
    ('start: "a" ~ 9999999', "'9999999'"),
    ("start: " + "(" * 70 + '"a"' + ")" * 70, "nested deeper"),
]
GROWING = 'start: a9\na0: "x" | "y"\n' + "\n".join(f"a{n}: a{n - 1} a{n - 1} a{n - 1}" for n in range(1, 10))


@pytest.mark.parametrize(("grammar", "fitting", "others", "regular"), CASES)
def test_grammar_takes_what_fits_and_nothing_else(
    grammar: str, fitting: list[str], others: list[str], regular: bool
) -> None:
    rules = GbnfGrammar(lark_text_grammar(grammar))
    for text in (*fitting, *others):
        assert rules.accepts(text) == (text in fitting), text
    if regular:
        pattern = json_string_pattern(lark_pattern(grammar))
        assert [text for text in fitting if not allowed(pattern, text)] == []
        assert [text for text in others if allowed(pattern, text)] == []
    else:
        with pytest.raises(Untranslatable, match="calls itself"):
            lark_pattern(grammar)


@pytest.mark.parametrize(("grammar", "reason"), REFUSED)
def test_grammar_that_is_not_supported_is_refused_with_its_reason(grammar: str, reason: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        lark_text_grammar(grammar)
    assert reason in caught.value.reason


def test_rules_that_grow_when_put_into_each_other_are_refused_as_a_pattern_only() -> None:
    assert lark_text_grammar(GROWING)
    with pytest.raises(Untranslatable, match="too long"):
        lark_pattern(GROWING)


def test_rules_that_stand_deep_in_each_other_are_refused_as_a_pattern_only() -> None:
    chain = "start: a0\n" + "\n".join(f'a{n}: "x" a{n + 1} | "y"' for n in range(400)) + '\na400: "z"'
    assert GbnfGrammar(lark_text_grammar(chain)).accepts("xxy")
    with pytest.raises(Untranslatable, match="deep"):
        lark_pattern(chain)


def test_names_that_are_the_same_to_gbnf_stay_apart() -> None:
    grammar = lark_text_grammar('start: a_b a-b root\na_b: "1"\na-b: "2"\nroot: "3"')
    assert GbnfGrammar(grammar).accepts("123")
    assert len(set(re.findall(r"^(\S+) ::=", grammar, re.MULTILINE))) == 4


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('start: "a".."z" "z".."a"', """the range '"z".."a"' in line 1 is out of order"""),
        (r'start: "\x00"', "it needs the character NUL, which ends a text for llama.cpp"),
        ('start: "a" start', "no text fits 'start', which never comes to an end"),
    ],
)
def test_refusal_names_what_is_wrong(grammar: str, reason: str) -> None:
    with pytest.raises(Untranslatable, match=f"^{re.escape(reason)}$"):
        lark_text_grammar(grammar)
