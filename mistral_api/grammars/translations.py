"""The syntaxes of a client's grammars, each with its translations: what brings all of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mistral_api.grammars.lark import lark_pattern, lark_text_grammar
from mistral_api.grammars.patterns import text_grammar, whole_string_pattern

# To a pattern, and to a grammar in GBNF, which can say more.
TRANSLATIONS: Final[Mapping[str, tuple[Callable[[str], str], Callable[[str], str]]]] = {
    "lark": (lark_pattern, lark_text_grammar),
    "regex": (whole_string_pattern, text_grammar),
}
