"""Whether texts that a schema names match patterns that it names, by the automata that enforce patterns.

Python's ``re`` backtracks, which a client's pattern can make last for ever while no other thread runs, and it is not
the language of JSON Schema: there ``\\d`` is an ASCII digit, and ``$`` is not also before a line feed at the end.
"""

from __future__ import annotations

from mistral_api.constraints.schemas.context import Context
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.patterns import pattern_matches
from mistral_api.payload_types import JsonObject


def matches(context: Context, part: JsonObject, keyword: str, pattern: str, text: str) -> bool | None:
    """Return whether a pattern matches anywhere in a text; None where the pattern is given up."""
    context.deadline.check()
    try:
        return pattern_matches(pattern, text)
    except Untranslatable as error:
        context.give_up(part, keyword, error.reason)
        return None
