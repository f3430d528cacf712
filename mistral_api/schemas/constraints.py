"""What binds the form of an answer: grammars and JSON schemas, within what llama.cpp survives.

Its parsers call themselves for every level of a grammar and every ``$ref`` of a schema. Seen on its
server: 40 000 nested parentheses, or a chain of 50 000 references, overflow the stack and end the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from mistral_api.schemas.contradictions import backward_grammar, refuse_contradictions
from mistral_api.schemas.fields import CheckedField, check_object, check_text
from mistral_api.schemas.issues import refuse

MOST_GRAMMAR_CHARACTERS = 65_536
MOST_GRAMMAR_LEVELS = 500
MOST_SCHEMA_VALUES = 10_000

_STEPS = {"(": 1, ")": -1}


def nested(value: Any) -> Iterator[list[Any]]:
    """The objects and arrays of a JSON value, level by level, the value itself first."""
    level = [value] if isinstance(value, dict | list) else []
    while level:
        yield level
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]


def check_schema(value: Any, path: str = "") -> None:
    """Refuse what is no object, a JSON schema of too many values, or one that no value can satisfy."""
    check_object(value, path)
    if sum(len(each) for level in nested(value) for each in level) > MOST_SCHEMA_VALUES:
        text = f"Invalid '{{param}}': schema too large. Expected at most {MOST_SCHEMA_VALUES} values."
        refuse("invalid_json_schema", text, path)
    refuse_contradictions(value, path)


class JsonSchema(CheckedField):
    """A JSON schema."""

    def check(self, value: Any) -> None:
        """Refuse what is no schema, or too large."""
        check_schema(value)


class Grammar(CheckedField):
    """A grammar in GBNF; whether it parses is the model server's to say."""

    def check(self, value: Any) -> None:
        """Refuse one that is too long or too deep, or never ends."""
        check_text(value, 0, MOST_GRAMMAR_CHARACTERS)
        if backward_grammar(value):
            refuse("invalid_value", "Invalid '{param}': something is repeated at least more often than at most.")
        # Parentheses in literals count too; no real grammar comes near the bound.
        if max(accumulate(_STEPS.get(letter, 0) for letter in value), default=0) > MOST_GRAMMAR_LEVELS:
            text = f"Invalid '{{param}}': nested too deeply. Expected at most {MOST_GRAMMAR_LEVELS} levels."
            refuse("invalid_value", text)
