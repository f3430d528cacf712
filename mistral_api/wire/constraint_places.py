"""Where a generation request holds grammars and JSON schemas, in all dialects, by the path of the field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mistral_api.wire.constraint_cost import grammar_digest, schema_digest
from mistral_api.wire.constraints import is_known_harmless
from mistral_api.wire.suspects import SuspectSchema, suspect_grammars, suspect_schemas

GRAMMAR_FIELD = "grammar"
# The paths of schemas; a star stands for each element of an array. Chat, Responses, Anthropic, llama.cpp.
_SCHEMA_PATHS = (
    ("json_schema",),
    ("response_format", "schema"),
    ("format",),  # Ollama
    ("response_format", "json_schema", "schema"),
    ("text", "format", "schema"),
    ("output_config", "format", "schema"),
    ("tools", "*", "function", "parameters"),
    ("tools", "*", "parameters"),
    ("tools", "*", "input_schema"),
    ("functions", "*", "parameters"),
)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A grammar (a string), or a JSON schema (an object), that stands at a path of a valid request."""

    path: str
    value: str | dict[str, Any]
    digest: bytes

    @property
    def is_grammar(self) -> bool:
        """Whether it is a grammar as llama.cpp takes it."""
        return isinstance(self.value, str)

    def is_harmless(self) -> bool:
        """Return whether it surely costs next to nothing. Grammars are rare, and all of them are tried."""
        return not isinstance(self.value, str) and is_known_harmless(self.value, self.digest)

    def suspect_grammars(self) -> list[str]:
        """Return the costliest parts of a grammar as grammars of their own."""
        return suspect_grammars(self.value) if isinstance(self.value, str) else []

    def suspect_schemas(self) -> list[SuspectSchema]:
        """Return the costliest parts of a schema as schemas of their own."""
        return [] if isinstance(self.value, str) else suspect_schemas(self.value)


def find_constraints(body: dict[str, Any]) -> list[Constraint]:
    """Return the constraints of a valid request. Most requests have none, and are asked for seven names."""
    found = [
        Constraint(path, schema, schema_digest(schema))
        for keys in _SCHEMA_PATHS
        if body.get(keys[0])
        for path, schema in _values_at(body, keys)
        if isinstance(schema, dict)
    ]
    grammar = body.get(GRAMMAR_FIELD)
    if grammar and isinstance(grammar, str):
        found.append(Constraint(GRAMMAR_FIELD, grammar, grammar_digest(grammar)))
    return found


def _values_at(value: Any, keys: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what stands at a path, each with the path as error messages write it."""
    if not keys:
        yield path, value
    elif keys[0] == "*":
        for index, each in enumerate(value if isinstance(value, list) else ()):
            yield from _values_at(each, keys[1:], f"{path}[{index}]")
    elif isinstance(value, dict) and keys[0] in value:
        yield from _values_at(value[keys[0]], keys[1:], f"{path}.{keys[0]}" if path else keys[0])
