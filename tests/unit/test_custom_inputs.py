"""A grammar of a custom tool that is none is refused by its place; one that cannot be said is described."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.custom_inputs import input_constraints, input_form

REGEX = ["(", ")", "[a", "a{3,2}", "*a", "[z-a]", "a\\"]
LARK = [
    "",
    "these are no rules",
    "start: (",
    "start: x",
    'start: "a',
    "start: *",
    "start: /(/",
    'start: "a"\nstart: "b"',
    '"a"',
]


@pytest.mark.parametrize(
    ("syntax", "definition"), [("regex", each) for each in REGEX] + [("lark", each) for each in LARK]
)
def test_what_is_no_grammar_is_refused_by_its_place(syntax: str, definition: str) -> None:
    grammar = {"syntax": syntax, "definition": definition}
    of_response: Any = {"type": "custom", "name": "c", "format": {"type": "grammar"} | grammar}
    of_chat: Any = {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": grammar}}}
    for tool, param in (
        (of_response, "tools[1].format.definition"),
        (of_chat, "tools[1].custom.format.grammar.definition"),
        ({"type": "namespace", "name": "n", "tools": [of_response]}, "tools[1].tools[0].format.definition"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            input_constraints([{"type": "function"}, tool])
        assert (refused.value.param, refused.value.code) == (param, "invalid_value")
        assert param in refused.value.message


@pytest.mark.parametrize(
    ("syntax", "definition"),
    [
        ("regex", r"(a)\1"),
        ("regex", r"[[:alpha:]]"),
        ("regex", "(?R)"),
        ("lark", 'start: list{"a"}\nlist{x}: x'),
        ("lark", "%declare A\nstart: A"),
        ("lark", 'start: %json {"type": "object"}'),
        ("lark", "start: A & B\nA: /a/\nB: /b/"),
        ("lark", "start: <|end|>"),
    ],
)
def test_what_cannot_be_said_is_described_only(syntax: str, definition: str) -> None:
    form = input_form(syntax, definition)
    assert (form.pattern, form.grammar, form.mistake) == (None, None, None)
