"""What schemas have been compiled to, within a bound in bytes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from threading import Lock

from cachetools import LRUCache

from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.payload_types import JsonObject


@dataclass(frozen=True, slots=True)
class Enforced:
    """A JSON schema for llama.cpp's converter, or a grammar in GBNF: one of both."""

    schema: JsonObject | None = None
    grammar: str | None = None


# What a schema was compiled to, or why it is refused.
Outcome = Enforced | SchemaRefused

_MOST_BYTES = 16 * 1024 * 1024
# No client's schema drives out more than a few of others.
_LARGEST_SHARE = 16
# What a character of a schema as JSON takes as Python's objects, about; and what an entry takes at least.
_BYTES_OF_CHARACTER, _BYTES_OF_ENTRY = 8, 500


class Remembered:
    """Outcomes by the digests of schemas; those that were used last are kept. Many threads read and write it.

    A refusal is kept as well: it may have taken as long to find out.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._found: LRUCache[tuple[bytes, str], Outcome] = LRUCache(most_bytes, getsizeof=_bytes)
        self._lock = Lock()

    def find(self, key: tuple[bytes, str]) -> Outcome | None:
        """Return what is known by a digest and what it was compiled for."""
        with self._lock:
            return self._found.get(key)

    def add(self, key: tuple[bytes, str], outcome: Outcome) -> None:
        """Remember an outcome, unless it is too large."""
        with self._lock:
            if _bytes(outcome) <= self._found.maxsize / _LARGEST_SHARE:
                self._found[key] = outcome

    @property
    def bytes(self) -> int:
        """How much is remembered, about."""
        with self._lock:
            return int(self._found.currsize)


def _bytes(outcome: Outcome) -> int:
    if isinstance(outcome, SchemaRefused):
        return _BYTES_OF_ENTRY + len(outcome.path) + len(outcome.reason)
    schema = 0 if outcome.schema is None else len(json.dumps(outcome.schema)) * _BYTES_OF_CHARACTER
    return _BYTES_OF_ENTRY + schema + sys.getsizeof(outcome.grammar)
