"""From a JSON schema to the values that it allows: references are followed, and what has to hold together is merged.

A goal is a list of parts that a value must fit all of. Goals are known by the identity of their parts, so a schema
that contains itself leads back to the goal that it began with, however its parts are merged on the way.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mistral_api.constraints.schemas.arrays import arrays
from mistral_api.constraints.schemas.conditions import CONDITIONS, conditions
from mistral_api.constraints.schemas.context import Bases, Context, Rules, holder
from mistral_api.constraints.schemas.ends import pruned
from mistral_api.constraints.schemas.errors import Impossible, SchemaRefused
from mistral_api.constraints.schemas.exclusive import Exclusivity
from mistral_api.constraints.schemas.literals import TYPES, lists_values, literals
from mistral_api.constraints.schemas.negation import without_negated
from mistral_api.constraints.schemas.objects import objects
from mistral_api.constraints.schemas.parts import SchemaParts
from mistral_api.constraints.schemas.ranges import integers, numbers
from mistral_api.constraints.schemas.strings import strings
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
_APPLIED = frozenset(("$ref", "$recursiveRef", "allOf", "anyOf", "oneOf", *CONDITIONS, "then", "else"))
_UNIONS = ("anyOf", "oneOf")
_WIDEST = [kind for kind in TYPES if kind != "integer"]
_KEYWORDS_OF_TYPES = {
    "object": ("properties", "additionalProperties", "patternProperties", "propertyNames", "required",
               "minProperties", "maxProperties", "unevaluatedProperties"),
    "array": ("items", "prefixItems", "contains", "uniqueItems", "minItems", "maxItems", "unevaluatedItems",
              "additionalItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}  # fmt: skip
_INFERRED_BY_ENGINE = ("properties", "additionalProperties", "items", "prefixItems")
# What llama.cpp resolves by itself, and makes rules of that are told apart.
_PLAIN_REFERENCE = re.compile(r"#/(\$defs|definitions)/[A-Za-z0-9_]+")
_MOST_GOALS = 4_000
_MOST_ALIASES = 8
# Of processor time: a schema of ordinary size takes some milliseconds.
_MOST_SECONDS = 2.0
# The most alternatives of which each is compared with each.
_MOST_COMPARED = 150
_MOST_COMBINATIONS = 200
_ENDLESS = "it refers to itself without an end"
_NOT_EXCLUSIVE = (
    "its alternatives may have values in common; 'oneOf' is enforced where they differ in their type, or in the "
    "constant value of a required property: use 'anyOf' instead"
)


@dataclass(slots=True)
class _Choice:
    """Alternatives, of which a value must fit one."""

    part: JsonObject
    keyword: str
    alternatives: list[list[JsonObject | bool]]


@dataclass(slots=True)
class _Flat:
    """A goal without references: parts that hold together, and choices."""

    bases: list[JsonObject] = field(default_factory=list)
    choices: list[_Choice] = field(default_factory=list)


class SchemaCompiler:
    """Compiles one schema, once."""

    def __init__(self, schema: JsonObject, rules: Rules) -> None:
        self.context = Context(SchemaParts(schema), rules)
        self._schema = schema
        self._deadline = time.thread_time() + _MOST_SECONDS
        self._numbers: dict[tuple[int, ...], int] = {}
        self._definitions: dict[int, Value] = {}
        self._notes: dict[int, JsonObject] = {}
        self._impossible: dict[int, Impossible] = {}
        # Goals that are being compiled, without an array or an object in between.
        self._open: set[int] = set()
        # The goal that is being compiled, and those whose parts name no type.
        self._current = -1
        self._inferred: set[int] = set()
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
        found = Program(root, self._definitions, self._notes, self.context.faithful, self.context.needs_grammar)
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
        number = self._numbers[key] = len(self._numbers)
        if number >= _MOST_GOALS or time.thread_time() > self._deadline:
            raise SchemaRefused("", "it is too large, once its parts are merged")
        self._goals.append(goal)
        self._note(number, goal)
        self._open.add(number)
        before, self._current = self._current, number
        try:
            self._definitions[number] = self._build(goal)
        except Impossible as impossible:
            self._impossible[number] = impossible
            self._definitions[number] = Union(())
            raise
        finally:
            self._current = before
            self._open.discard(number)
        return Reference(number)

    def _note(self, number: int, goal: list[JsonObject]) -> None:
        for part in goal:
            for name in _NOTES:
                if name in part:
                    self._notes.setdefault(number, {}).setdefault(name, part[name])

    def _build(self, goal: Sequence[JsonObject | bool]) -> Value:
        alias = self._alias(goal)
        if alias is not None:
            return self.compile([alias])
        flat = self._flatten(goal)
        if len(flat.bases) > 1:
            self.context.changed()
        if flat.choices:
            return self._union(flat)
        return self._plain(flat.bases)

    def _alias(self, goal: Sequence[JsonObject | bool]) -> JsonObject | bool | None:
        """Return what a goal refers to, where it is a reference and nothing else."""
        part = goal[0] if len(goal) == 1 else None
        if not isinstance(part, dict) or "$ref" not in part or not set(part) - {"$ref"} <= ANNOTATIONS:
            return None
        return self._target(part, "$ref")

    def _flatten(self, goal: Sequence[JsonObject | bool]) -> _Flat:
        flat, seen = _Flat(), set[int]()
        for part in goal:
            self._add(flat, part, seen, ())
        return flat

    def _add(self, flat: _Flat, part: Any, seen: set[int], above: tuple[int, ...]) -> None:
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
        flat.choices += self._choices(part, alone=base is None)

    def _require_possible(self, part: object) -> None:
        """Raise Impossible for ``false``; what else is no object says nothing."""
        self.context.changed()
        if part is False:
            raise Impossible("", "'false' allows none")

    def _joined(self, part: JsonObject) -> list[JsonObject | bool]:
        """Return what has to hold beside a part: what it refers to, and what ``allOf`` lists."""
        found = [self._target(part, keyword) for keyword in ("$ref", "$recursiveRef") if keyword in part]
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
        except SchemaRefused:
            if not self.context.rules.lenient:
                raise
            self.context.changed()
            return True
        text = str(part[keyword])
        rule = re.sub("[^A-Za-z0-9]", "-", text)
        if self._references.setdefault(rule, text) != text or not _PLAIN_REFERENCE.fullmatch(text):
            self.context.changed()
        return found

    def _choices(self, part: JsonObject, *, alone: bool) -> list[_Choice]:
        found = [
            _Choice(part, keyword, [[each] for each in self.context.list_of(part, keyword)])
            for keyword in _UNIONS
            if keyword in part
        ]
        found = [choice for choice in found if choice.alternatives]
        found += [_Choice(part, keyword, each) for keyword, each in conditions(self.context, part)]
        if len(found) > 1 or (found and not alone):
            self.context.changed()
        return found

    def _union(self, flat: _Flat) -> Value:
        for choice in flat.choices:
            if choice.keyword == "oneOf":
                self._require_exclusive(flat.bases, choice)
        count = 1
        for choice in flat.choices:
            count *= len(choice.alternatives)
        if len(flat.choices) > 1 and count > _MOST_COMBINATIONS:
            last = flat.choices[-1]
            self.context.give_up(last.part, last.keyword, "too many alternatives are combined")
            return self._union(_Flat(flat.bases, flat.choices[:-1]))
        combinations = itertools.product(*(choice.alternatives for choice in flat.choices))
        return self._union_of([[*flat.bases, *itertools.chain(*each)] for each in combinations])

    def _union_of(self, goals: list[list[JsonObject | bool]]) -> Value:
        found: list[Value] = []
        failures: list[Impossible] = []
        for goal in goals:
            try:
                found.append(self.compile(goal))
            except Impossible as impossible:
                self.context.changed()
                failures.append(impossible)
        if not found:
            raise failures[0]
        return union_of([self._inlined(each) for each in found])

    def _inlined(self, value: Value) -> Value:
        """Return lists of values as such, so that unions of them are one list."""
        found = self._definitions.get(value.number) if isinstance(value, Reference) else None
        if isinstance(value, Reference) and isinstance(found, Literals) and value.number not in self._notes:
            return found
        return value

    def _require_exclusive(self, bases: list[JsonObject], choice: _Choice) -> None:
        values = []
        for alternative in choice.alternatives:
            try:
                values.append(self.compile([*bases, *alternative]))
            except Impossible:
                continue
        compare = Exclusivity(self._definitions, self._inferred)
        if compare.are_distinct_literals(values):
            return
        pairs = itertools.combinations(values, 2)
        if len(values) > _MOST_COMPARED or not all(compare.excludes(one, other) for one, other in pairs):
            self.context.give_up(choice.part, choice.keyword, _NOT_EXCLUSIVE)

    def _plain(self, bases: list[JsonObject]) -> Value:
        """Return what fits parts without references, unions and the like."""
        given = bases
        bases, removed = without_negated(self.context, given)
        types = self._types(bases)
        if removed:
            types = [kind for kind in (_WIDEST if types == ["any"] else types) if kind not in removed]
        if not types:
            part = holder(given, "type", "not")
            keyword = "type" if "type" in part else "not"
            raise Impossible(self.context.parts.place(part, keyword), "its types exclude each other")
        if any(map(lists_values, bases)):
            return literals(self.context, bases, types)
        if types == ["any"]:
            return ANY
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

    def _types(self, bases: Bases) -> list[str]:
        """Return the types that all parts allow; those that their keywords are about, where none names a type."""
        named = [types for base in bases if (types := self._named_types(base)) is not None]
        if not named:
            return self._inferred_types(bases)
        types = list(TYPES)
        for each in named:
            types = _common_types(types, each)
        order = [kind for kind in named[0] if kind in types]
        return order + [kind for kind in types if kind not in order]

    def _named_types(self, base: JsonObject) -> list[str] | None:
        if "type" not in base:
            return None
        given = base["type"] if isinstance(base["type"], list) else [base["type"]]
        known = [kind for kind in given if kind in TYPES]
        if len(known) < len(given) or not given:
            self.context.changed()
            self.context.give_up(base, "type", "it has to be one of JSON's types, or an array of these")
            return known or None
        return [
            "number" if kind == "number" else kind for kind in known if not (kind == "integer" and "number" in known)
        ]

    def _inferred_types(self, bases: Bases) -> list[str]:
        found = [
            kind
            for kind, keywords in _KEYWORDS_OF_TYPES.items()
            if any(keyword in base for base in bases for keyword in keywords)
        ]
        if any(map(lists_values, bases)):
            return list(TYPES)
        if found:
            self._inferred.add(self._current)
        if found and not (len(found) == 1 and any(keyword in bases[0] for keyword in _INFERRED_BY_ENGINE)):
            self.context.changed()
        return found or ["any"]

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
            found = self._definitions.get(found.number)
        return found.texts if isinstance(found, Literals) else None


class _Endless(Impossible):
    """A schema leads back to itself before anything has been generated: as an alternative it adds nothing."""


def _common_types(one: list[str], other: list[str]) -> list[str]:
    """Return the types in both; an integer is a number."""
    wide = {kind for kind in one if kind in other}
    if "integer" in one and "number" in other:
        wide.add("integer")
    if "integer" in other and "number" in one:
        wide.add("integer")
    if "number" in wide:
        wide.discard("integer")
    return [kind for kind in TYPES if kind in wide]
