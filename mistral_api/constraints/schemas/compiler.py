"""From a JSON schema to the values that it allows: references are followed, and what has to hold together is merged.

A goal is a list of parts that a value must fit all of. Goals are known by the identity of their parts, so a schema
that contains itself leads back to the goal that it began with, however its parts are merged on the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mistral_api.constraints.schemas.arrays import arrays
from mistral_api.constraints.schemas.conditions import CONDITIONS
from mistral_api.constraints.schemas.context import Bases, Context, Strictness, holder
from mistral_api.constraints.schemas.deadline import Deadline
from mistral_api.constraints.schemas.ends import pruned
from mistral_api.constraints.schemas.errors import Impossible, SchemaRefused
from mistral_api.constraints.schemas.literals import lists_values, literals
from mistral_api.constraints.schemas.negation import without_negated
from mistral_api.constraints.schemas.objects import objects
from mistral_api.constraints.schemas.parts import SchemaParts
from mistral_api.constraints.schemas.ranges import integers, numbers
from mistral_api.constraints.schemas.strings import check_format, strings
from mistral_api.constraints.schemas.types import inferred_types, named_types, without_types
from mistral_api.constraints.schemas.unions import UNIONS, Flat, choices_of, union
from mistral_api.constraints.schemas.values import ANY, Literals, Program, Reference, Simple, Union, Value, union_of
from mistral_api.payload_types import JsonObject

# What only describes, and identifies.
ANNOTATIONS = frozenset((
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment",
    "$schema", "$id", "$anchor", "$dynamicAnchor", "$vocabulary", "$defs", "definitions", "contentEncoding",
    "contentMediaType", "contentSchema", "nullable",
))  # fmt: skip
# What is shown of a schema where it has been rewritten.
_NOTES = ("title", "description", "default", "examples", "deprecated", "format", "pattern")
# A name in a dynamic reference is that of one part only (``SchemaParts``), so it leads there from everywhere.
_REFERENCES = ("$ref", "$recursiveRef", "$dynamicRef")
_APPLIED = frozenset((*_REFERENCES, "allOf", *UNIONS, *CONDITIONS, "then", "else"))
# What llama.cpp resolves by itself, and makes rules of that are told apart.
_PLAIN_REFERENCE = re.compile(r"#/(\$defs|definitions)/[A-Za-z0-9_]+")
_MOST_GOALS = 4_000
_MOST_ALIASES = 8
_ENDLESS = "it refers to itself without an end"


class SchemaCompiler:
    """Compiles one schema, once."""

    def __init__(self, schema: JsonObject, strictness: Strictness, deadline: Deadline, first: int = 0) -> None:
        """``first``: the number of the first definition, behind those of other schemas that it is joined with."""
        self.context = Context(SchemaParts(schema), strictness, deadline)
        self._schema = schema
        self._first = first
        self._numbers: dict[tuple[int, ...], int] = {}
        self._impossible: dict[int, Impossible] = {}
        # Goals that are being compiled, without an array or an object in between.
        self._open: set[int] = set()
        # The goal that is being compiled.
        self._current = -1
        self._stripped: dict[int, JsonObject | None] = {}
        self._goals: list[Sequence[JsonObject | bool]] = []  # keeps their parts, which are known by identity
        self._references: dict[str, str] = {}

    def program(self) -> Program:
        """Return what the schema allows. Raises SchemaRefused."""
        try:
            root = self.compile([self._schema])
        except Impossible as impossible:
            reason = f"no value can satisfy it, because {impossible.reason}"
            raise SchemaRefused(impossible.path, reason) from impossible
        if not isinstance(root, Reference):
            raise TypeError("a schema is compiled to a definition")
        context = self.context
        found = Program(root, context.definitions, context.notes, context.faithful, context.needs_grammar)
        return pruned(found)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Compile what stands inside an array or an object, where a schema may lead back to itself."""
        before, self._open = self._open, set()
        try:
            yield
        finally:
            self._open = before

    def compile(self, parts: Sequence[JsonObject | bool]) -> Value:
        """Return the values that fit all of these parts. Raises Impossible where there are none."""
        if any(part is False for part in parts):
            self.context.changed()
            raise Impossible(self.context.parts.place(self._schema), "'false' allows none")
        if any(part is True for part in parts):
            self.context.changed()
        goal = [part for part in parts if isinstance(part, dict)]
        if not goal:
            return ANY
        key = tuple(dict.fromkeys(map(id, goal)))
        number = self._numbers.get(key)
        if number is None:
            return self._compile_new(key, goal)
        if number in self._open:
            raise _Endless(self.context.parts.place(goal[0]), _ENDLESS)
        if number in self._impossible:
            raise self._impossible[number]
        return Reference(number)

    def _compile_new(self, key: tuple[int, ...], goal: list[JsonObject]) -> Value:
        if len(self._numbers) >= _MOST_GOALS:
            raise SchemaRefused("", "it is too large, once its parts are merged")
        self.context.deadline.check()
        number = self._numbers[key] = self._first + len(self._numbers)
        self._goals.append(goal)
        self._note(number, goal)
        self._open.add(number)
        before, self._current = self._current, number
        try:
            self.context.definitions[number] = self._build(goal)
        except Impossible as impossible:
            self._impossible[number] = impossible
            self.context.definitions[number] = Union(())
            raise
        finally:
            self._current = before
            self._open.discard(number)
        return Reference(number)

    def _note(self, number: int, goal: list[JsonObject]) -> None:
        for part in goal:
            for name in _NOTES:
                if name in part and (name != "format" or isinstance(part[name], str)):
                    self.context.notes.setdefault(number, {}).setdefault(name, part[name])

    def _build(self, goal: Sequence[JsonObject | bool]) -> Value:
        alias = self._alias(goal)
        if alias is not None:
            return self.compile([alias])
        flat = self._flatten(goal)
        if len(flat.bases) > 1:
            self.context.changed()
        if flat.choices:
            return union(self, flat)
        return self._plain(flat.bases)

    def _alias(self, goal: Sequence[JsonObject | bool]) -> JsonObject | bool | None:
        """Return what a goal refers to, where it is a reference and nothing else."""
        part = goal[0] if len(goal) == 1 else None
        if not isinstance(part, dict) or "$ref" not in part or not set(part) - {"$ref"} <= ANNOTATIONS:
            return None
        return self._target(part, "$ref")

    def _flatten(self, goal: Sequence[JsonObject | bool]) -> Flat:
        flat, seen = Flat(), set[int]()
        for part in goal:
            self._add(flat, part, seen, ())
        return flat

    def _add(self, flat: Flat, part: Any, seen: set[int], above: tuple[int, ...]) -> None:
        """Add a part with all that it refers to. ``above``: the parts that have led here."""
        if not isinstance(part, dict):
            self._require_possible(part)
            return
        if id(part) in above:
            raise _Endless(self.context.parts.place(part), _ENDLESS)
        if id(part) in seen:
            return
        seen.add(id(part))
        base = self._without_applied(part)
        if base is not None:
            flat.bases.append(base)
        for each in self._joined(part):
            self._add(flat, each, seen, (*above, id(part)))
        flat.choices += choices_of(self.context, part, alone=base is None)

    def _require_possible(self, part: object) -> None:
        """Raise Impossible for ``false``; what else is no object says nothing."""
        self.context.changed()
        if part is False:
            raise Impossible("", "'false' allows none")

    def _joined(self, part: JsonObject) -> list[JsonObject | bool]:
        """Return what has to hold beside a part: what it refers to, and what ``allOf`` lists."""
        found = [self._target(part, keyword) for keyword in _REFERENCES if keyword in part]
        if "allOf" in part:
            self.context.changed()
        return found + self.context.list_of(part, "allOf")

    def _without_applied(self, part: JsonObject) -> JsonObject | None:
        """Return a part without references, unions and annotations; None where nothing remains."""
        if id(part) not in self._stripped:
            kept = {name: value for name, value in part.items() if name not in _APPLIED and name not in ANNOTATIONS}
            if kept and len(kept) < len(part) and set(part) & _APPLIED:
                self.context.changed()
            self._stripped[id(part)] = self.context.parts.derive(part, kept) if kept else None
        return self._stripped[id(part)]

    def _target(self, part: JsonObject, keyword: str) -> JsonObject | bool:
        reference = part if keyword == "$ref" else self.context.parts.derive(part, {"$ref": part[keyword]})
        try:
            found = self.context.parts.target(reference)
        except SchemaRefused as refused:
            self.context.changed()
            self.context.give_up(part, keyword, refused.reason)
            return True
        text = str(part[keyword])
        rule = re.sub("[^A-Za-z0-9]", "-", text)
        is_plain = keyword == "$ref" and _PLAIN_REFERENCE.fullmatch(text)
        if self._references.setdefault(rule, text) != text or not is_plain:
            self.context.changed()
        return found

    def _plain(self, given: list[JsonObject]) -> Value:
        """Return what fits parts without references, unions and the like."""
        for each in given:
            check_format(self.context, each)
        bases, removed = without_negated(self.context, given)
        types = without_types(self._types(bases), removed)
        if not types:
            part = holder(given, "type", "not")
            keyword = "type" if "type" in part else "not"
            raise Impossible(self.context.parts.place(part, keyword), "its types exclude each other")
        if any(map(lists_values, bases)):
            return literals(self.context, bases, types)
        return ANY if types == ["any"] else self._of_types(types, bases)

    def _types(self, bases: Bases) -> list[str]:
        named = named_types(self.context, bases)
        if named is not None:
            return named
        found = inferred_types(self.context, bases)
        if found != ["any"] and not any(map(lists_values, bases)):
            self.context.inferred.add(self._current)
        return found

    def _of_types(self, types: list[str], bases: Bases) -> Value:
        found: list[Value] = []
        failures: list[Impossible] = []
        for kind in types:
            try:
                found.append(self._of_type(kind, bases))
            except Impossible as impossible:
                self.context.changed()
                failures.append(impossible)
        if not found:
            raise failures[0]
        return union_of(found)

    def _of_type(self, kind: str, bases: Bases) -> Value:
        match kind:
            case "object":
                return objects(self, bases)
            case "array":
                return arrays(self, bases)
            case "string":
                return strings(self.context, bases)
            case "integer":
                return integers(self.context, bases)
            case "number":
                return numbers(self.context, bases)
        return Simple(kind)

    def listed(self, value: Value) -> tuple[str, ...] | None:
        """Return the values, as JSON, of one that is a list of values; None for another one."""
        found: Value | None = value
        for _ in range(_MOST_ALIASES):
            if not isinstance(found, Reference):
                break
            found = self.context.definitions.get(found.number)
        return found.texts if isinstance(found, Literals) else None


class _Endless(Impossible):
    """A schema leads back to itself before anything has been generated: as an alternative it adds nothing."""
