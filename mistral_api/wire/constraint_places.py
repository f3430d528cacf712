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
    ("tools", "*", "tools", "*", "parameters"),
    ("input", "*", "tools", "*", "parameters"),
    ("input", "*", "tools", "*", "tools", "*", "parameters"),
    ("tools", "*", "input_schema"),
    ("functions", "*", "parameters"),
)
# What holds the schema of a tool's arguments.
_OF_TOOLS = ("parameters", "input_schema")


@dataclass(frozen=True, slots=True)
class PlacedSchema:
    """A JSON schema of a valid request. ``of_tool``: it is that of a tool's arguments; ``strict``: of a strict one."""

    path: str
    schema: dict[str, Any]
    of_tool: bool = False
    strict: bool = False


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


def find_schemas(body: dict[str, Any]) -> list[PlacedSchema]:
    """Return the JSON schemas of a valid request. Most requests have none, and are asked for six names."""
    return [
        PlacedSchema(path, holder[keys[-1]], keys[-1] in _OF_TOOLS, strict=holder.get("strict") is True)
        for keys in _SCHEMA_PATHS
        if body.get(keys[0])
        for path, holder in _holders(body, keys)
    ]


def _holders(body: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects that hold a schema at a path, each with the path of the schema."""
    for path, holder in _values_at(body, keys[:-1]):
        if isinstance(holder, dict) and isinstance(holder.get(keys[-1]), dict):
            yield (f"{path}.{keys[-1]}" if path else keys[-1]), holder


def find_constraints(body: dict[str, Any]) -> list[Constraint]:
    """Return the constraints of a valid request as it has brought them."""
    found = [schema_constraint(each.path, each.schema) for each in find_schemas(body)]
    grammar = find_grammar(body)
    return found if grammar is None else [*found, grammar]


def find_grammar(body: dict[str, Any]) -> Constraint | None:
    """Return the grammar that a valid request has brought."""
    grammar = body.get(GRAMMAR_FIELD)
    return grammar_constraint(GRAMMAR_FIELD, grammar) if grammar and isinstance(grammar, str) else None


def grammar_constraint(path: str, grammar: str) -> Constraint:
    """Return a grammar as a constraint."""
    return Constraint(path, grammar, grammar_digest(grammar))


def schema_constraint(path: str, schema: dict[str, Any]) -> Constraint:
    """Return a JSON schema as a constraint."""
    return Constraint(path, schema, schema_digest(schema))


def _values_at(value: Any, keys: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what stands at a path, each with the path as error messages write it."""
    if not keys:
        yield path, value
    elif keys[0] == "*":
        for index, each in enumerate(value if isinstance(value, list) else ()):
            yield from _values_at(each, keys[1:], f"{path}[{index}]")
    elif isinstance(value, dict) and keys[0] in value:
        yield from _values_at(value[keys[0]], keys[1:], f"{path}.{keys[0]}" if path else keys[0])
