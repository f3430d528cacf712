"""What schemas have been compiled to, within a bound in bytes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.grammars.sized_cache import MOST_BYTES, SizedCache
from mistral_api.payload_types import JsonObject


@dataclass(frozen=True, slots=True)
class Enforced:
    """A JSON schema for llama.cpp's converter, or a grammar in GBNF: one of both."""

    schema: JsonObject | None = None
    grammar: str | None = None


# What a schema was compiled to, or why it is refused.
Outcome = Enforced | SchemaRefused

# No client's schema drives out more than a few of others.
_LARGEST_SHARE = 16
# What a character of a schema as JSON takes as Python's objects, about; and what an entry takes at least.
_BYTES_OF_CHARACTER, _BYTES_OF_ENTRY = 8, 500


class Remembered(SizedCache[tuple[bytes, str], Outcome]):
    """Outcomes by the digests of schemas, and what they were compiled for.

    A refusal is kept as well: it may have taken as long to find out.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(lambda _, outcome: _bytes(outcome), most_bytes, largest=most_bytes // _LARGEST_SHARE)


def _bytes(outcome: Outcome) -> int:
    if isinstance(outcome, SchemaRefused):
        return _BYTES_OF_ENTRY + len(outcome.path) + len(outcome.reason)
    schema = 0 if outcome.schema is None else len(json.dumps(outcome.schema)) * _BYTES_OF_CHARACTER
    return _BYTES_OF_ENTRY + schema + sys.getsizeof(outcome.grammar)
