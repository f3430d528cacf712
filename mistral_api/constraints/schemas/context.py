"""What all that reads keywords of a schema shares: how it gives up, and what it has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from mistral_api.constraints.schemas.deadline import Deadline
from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.constraints.schemas.parts import SchemaParts
from mistral_api.constraints.schemas.values import Value
from mistral_api.payload_types import JsonObject

# The parts of a schema that have to hold together: schemas without references, unions and the like.
Bases = Sequence[JsonObject]


@dataclass(frozen=True, slots=True)
class Strictness:
    """How a schema is compiled.

    ``lenient``: what cannot be enforced is left out, instead of being refused. ``grammar``: a grammar may say what a
    schema for llama.cpp cannot.
    """

    lenient: bool = False
    grammar: bool = True


class Context:
    """The state of one compilation."""

    def __init__(self, parts: SchemaParts, strictness: Strictness, deadline: Deadline) -> None:
        self.parts = parts
        self.strictness = strictness
        self.deadline = deadline
        self.faithful = True
        self.needs_grammar = False
        # What has been compiled, by its number, with its annotations; and the numbers of what names no type.
        self.definitions: dict[int, Value] = {}
        self.notes: dict[int, JsonObject] = {}
        self.inferred: set[int] = set()

    def changed(self) -> None:
        """Note that the schema cannot be sent as it is."""
        self.faithful = False

    def give_up(self, part: JsonObject, keyword: str, reason: str) -> None:
        """Refuse a keyword. Where the compilation is lenient, return: it is left out then."""
        if not self.strictness.lenient:
            raise SchemaRefused(self.parts.place(part, keyword), reason)

    def may_use_grammar(self, part: JsonObject, keyword: str, reason: str) -> bool:
        """Return whether a keyword that only a grammar can say is enforced; else it is given up."""
        if self.strictness.grammar:
            self.needs_grammar = True
            return True
        self.give_up(part, keyword, reason)
        return False

    def list_of(self, part: JsonObject, keyword: str) -> list[Any]:
        """Return the list that a keyword holds; empty where it is absent, or no list and given up."""
        value = part.get(keyword, [])
        if isinstance(value, list):
            return value
        self.changed()
        self.give_up(part, keyword, "it has to be an array")
        return []

    def names_of(self, part: JsonObject, keyword: str) -> list[str]:
        """Return the strings of a list of names."""
        return [name for name in self.list_of(part, keyword) if isinstance(name, str)]

    def object_of(self, part: JsonObject, keyword: str) -> JsonObject:
        """Return the object that a keyword holds; empty where it is absent, or no object and given up."""
        value = part.get(keyword, {})
        if isinstance(value, dict):
            return value
        self.changed()
        self.give_up(part, keyword, "it has to be an object")
        return {}

    def schema_of(self, part: JsonObject, keyword: str) -> JsonObject | bool | None:
        """Return the schema that a keyword holds; None where it is absent, or none and given up."""
        value = part.get(keyword)
        if value is None or isinstance(value, dict | bool):
            return value
        self.changed()
        self.give_up(part, keyword, "it has to be a schema")
        return None

    def count_of(self, part: JsonObject, keyword: str) -> int | None:
        """Return the count that a keyword holds, None where it is absent."""
        value = part.get(keyword)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():  # which llama.cpp refuses
            self.changed()
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        self.changed()
        self.give_up(part, keyword, "it has to be an integer of at least 0")
        return None

    def counts(self, bases: Bases, low: str, high: str) -> tuple[int, int | None]:
        """Return the bounds that counts of these keywords set together."""
        lows = [self.count_of(base, low) or 0 for base in bases]
        highs = [count for base in bases if (count := self.count_of(base, high)) is not None]
        return max(lows, default=0), min(highs, default=None)


class Compiler(Protocol):
    """What compiles the schemas inside others."""

    context: Context

    def compile(self, parts: Sequence[JsonObject | bool]) -> Value:
        """Return the values that fit all of these parts. Raises Impossible where there are none."""

    def listed(self, value: Value) -> tuple[str, ...] | None:
        """Return the values, as JSON, of one that is a list of values; None for another one."""

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Compile what stands inside an array or an object, where a schema may lead back to itself."""


def holder(bases: Bases, *keywords: str) -> JsonObject:
    """Return the first part that has one of these keywords."""
    return next(base for base in bases if any(keyword in base for keyword in keywords))
