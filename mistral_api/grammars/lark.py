"""Grammars in lark, as OpenAI's custom tools have them, in the words that llama.cpp understands."""

from __future__ import annotations


def lark_string_pattern(grammar: str) -> str:
    """Return the ``pattern`` of a JSON schema for strings whose decoded value fits a grammar in lark.

    It is for a custom tool whose text is a string inside the arguments of a function. Raises Untranslatable, also for a
    grammar whose rules call themselves: no regular expression says that. Codex's apply_patch has none.
    """
    raise NotImplementedError


def lark_text_grammar(grammar: str) -> str:
    """Return a grammar in GBNF of the texts that fit a grammar in lark. Raises Untranslatable."""
    raise NotImplementedError


def lark_json_grammar(grammar: str) -> str:
    """Return a grammar in GBNF of JSON strings, quotes included, whose value fits a grammar in lark.

    Raises Untranslatable.
    """
    raise NotImplementedError
