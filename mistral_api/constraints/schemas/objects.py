"""Objects of a schema: their properties, and what others they may have.

An object gets the properties that its schema names, and no others, unless the schema names none. JSON Schema allows
others where ``additionalProperties`` is absent or ``true``; to leave them out contradicts no schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import cast

from mistral_api.constraints.schemas.context import Bases, Compiler, Context, holder
from mistral_api.constraints.schemas.errors import Impossible
from mistral_api.constraints.schemas.matches import matches
from mistral_api.constraints.schemas.strings import strings
from mistral_api.constraints.schemas.values import ANY, Fields, Property, Simple, Text, Value, union_of
from mistral_api.payload_types import JsonObject

_MOST_NAMED_FIRST = 12
_ONLY_GRAMMAR = "llama.cpp cannot enforce it in the arguments of a strict tool that the model may choose to call"
_COUNTS = "the number of properties is enforced only where it is 1, or no property is named"
_PATTERNS = "one pattern of names is supported, which no name in 'properties' matches"
_NAMES = "names are enforced by a list of them, or by a pattern where 'properties' names none"


@dataclass(slots=True)
class _Members:
    """What the parts say of an object: the schemas of each property, and of others."""

    named: dict[str, list[JsonObject | bool]] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    others: list[JsonObject | bool] = field(default_factory=list)
    closed: bool = False


def objects(compiler: Compiler, bases: Bases) -> Value:
    """Return the objects that fit these parts."""
    context = compiler.context
    members = _members(context, bases)
    with compiler.inside():
        fields = _named_fields(compiler, bases, members)
        fields = _with_others(compiler, bases, members, fields)
    return _counted(context, bases, fields)


def _members(context: Context, bases: Bases) -> _Members:
    found = _Members()
    properties = [context.object_of(base, "properties") for base in bases]
    others = [_others(context, base) for base in bases]
    found.required = {name for base in bases for name in context.names_of(base, "required")}
    undeclared = found.required.difference(*properties)
    for name in dict.fromkeys([*(name for each in properties for name in each), *sorted(undeclared)]):
        context.deadline.check()
        found.named[name] = [
            part
            for base, own, other in zip(bases, properties, others, strict=True)
            for part in _of_name(context, base, own, other, name)
        ]
    if undeclared:
        context.changed()
    found.others = [other for other in others if isinstance(other, dict)]
    found.closed = any(other is False for other in others)
    return found


def _others(context: Context, base: JsonObject) -> JsonObject | bool | None:
    """Return the schema of properties that a part does not name; None where it says nothing of them."""
    found = context.schema_of(base, "additionalProperties")
    if found is None and base.get("unevaluatedProperties") is False:
        context.changed()
        return False
    return found


def _of_name(
    context: Context, base: JsonObject, own: JsonObject, other: JsonObject | bool | None, name: str
) -> Iterator[JsonObject | bool]:
    """Yield what a part says of a property."""
    matching = [
        part
        for pattern, part in context.object_of(base, "patternProperties").items()
        if _matches(context, base, pattern, name)
    ]
    if name in own:
        yield own[name]
    elif not matching and other is not None:
        yield other
    yield from matching


def _matches(context: Context, base: JsonObject, pattern: str, name: str) -> bool:
    context.changed()
    return matches(context, base, "patternProperties", pattern, name) is True


def _named_fields(compiler: Compiler, bases: Bases, members: _Members) -> Fields:
    properties: list[Property] = []
    forbidden: list[str] = []
    for name, parts in members.named.items():
        try:
            properties.append(Property(name, compiler.compile(parts), name in members.required))
        except Impossible:
            if name in members.required:
                raise
            compiler.context.changed()
            forbidden.append(name)
    return Fields(tuple(properties), closed=members.closed, forbidden=tuple(forbidden))


def _with_others(compiler: Compiler, bases: Bases, members: _Members, fields: Fields) -> Fields:
    """Return the fields with the further properties that the parts allow."""
    context = compiler.context
    patterned = [base for base in bases if context.object_of(base, "patternProperties")]
    names = _names(compiler, bases)
    if names is not None and not isinstance(names, Text):
        return _with_listed(compiler, bases, members, fields, names)
    if patterned:
        return _with_patterned(compiler, bases, members, fields, patterned)
    if members.closed or (members.named and not members.others):
        _note_open(context, bases, members)
        return _require_names(context, bases, fields, names)
    return _with_further(compiler, bases, members, fields, names)


def _with_further(compiler: Compiler, bases: Bases, members: _Members, fields: Fields, names: Text | None) -> Fields:
    """Return the fields with further properties of any name, or of those that ``names`` allows."""
    context = compiler.context
    if members.named and not _by_grammar(context, bases, "additionalProperties"):
        context.changed()
        return fields
    try:
        extra = compiler.compile(members.others)
    except Impossible:
        return fields
    allowed = names if names is not None and _by_grammar(context, bases, "propertyNames") else None
    return replace(fields, extra=extra, extra_names=allowed)


def _by_grammar(context: Context, bases: Bases, keyword: str) -> bool:
    return context.may_use_grammar(holder(bases, keyword), keyword, _ONLY_GRAMMAR)


def _note_open(context: Context, bases: Bases, members: _Members) -> None:
    """llama.cpp would make more of ``additionalProperties: true`` beside properties than it can enforce."""
    if not members.closed and any("additionalProperties" in base for base in bases):
        context.changed()


def _names(compiler: Compiler, bases: Bases) -> Text | list[str] | None:
    """Return the names that ``propertyNames`` allows: strings, a list of them, or None for all."""
    context = compiler.context
    rules = [rule for base in bases if (rule := context.schema_of(base, "propertyNames")) not in (None, True, {})]
    if not rules:
        return None
    context.changed()
    parts = [rule for rule in rules if isinstance(rule, dict)]
    if len(parts) < len(rules):
        return []
    return _names_of(compiler, holder(bases, "propertyNames"), parts)


def _names_of(compiler: Compiler, part: JsonObject, parts: list[JsonObject]) -> Text | list[str] | None:
    try:
        listed = compiler.listed(compiler.compile(parts))
    except Impossible:
        return []
    if listed is not None:
        return [name for name in map(json.loads, listed) if isinstance(name, str)]
    if any(set(each) & {"anyOf", "oneOf", "allOf", "$ref", "not", "if"} for each in parts):
        compiler.context.give_up(part, "propertyNames", _NAMES)
        return None
    found = strings(compiler.context, parts)
    return found if isinstance(found, Text) else None


def _require_names(context: Context, bases: Bases, fields: Fields, names: Text | None) -> Fields:
    if isinstance(names, Text):
        context.give_up(holder(bases, "propertyNames"), "propertyNames", _NAMES)
    return fields


def _with_listed(compiler: Compiler, bases: Bases, members: _Members, fields: Fields, names: list[str]) -> Fields:
    """Return the fields with those that ``propertyNames`` lists as optional ones, and no others."""
    allowed = set(names)
    kept = [each for each in fields.properties if each.name in allowed]
    if any(each.required and each.name not in allowed for each in fields.properties):
        part = holder(bases, "propertyNames")
        raise Impossible(compiler.context.parts.place(part, "propertyNames"), "it excludes a required property")
    if not members.closed:
        try:
            value = compiler.compile(members.others)
        except Impossible:
            value = None
        known = {each.name for each in fields.properties} | set(fields.forbidden)
        kept += [Property(name, value, False) for name in names if value is not None and name not in known]
    return replace(fields, properties=tuple(kept), closed=True)


def _with_patterned(compiler: Compiler, bases: Bases, members: _Members, fields: Fields, patterned: Bases) -> Fields:
    """Return objects of any number of properties whose names match the one pattern; of those named, where there are."""
    context, part = compiler.context, patterned[0]
    patterns = part["patternProperties"]
    if members.named:
        return fields
    if len(patterned) > 1 or len(patterns) > 1:
        context.give_up(part, "patternProperties", _PATTERNS)
    elif context.may_use_grammar(part, "patternProperties", _ONLY_GRAMMAR):
        ((pattern, value),) = patterns.items()
        rule = context.parts.derive(part, {"pattern": pattern})
        names = strings(context, [rule])
        return replace(fields, extra=compiler.compile([value]), extra_names=cast(Text, names))
    return Fields(extra=ANY)


def _counted(context: Context, bases: Bases, fields: Fields) -> Value:
    """Return the objects of these fields that have as many properties as they must."""
    low, high = context.counts(bases, "minProperties", "maxProperties")
    if high is not None and low > high:
        raise Impossible(
            context.parts.place(holder(bases, "minProperties")), "'minProperties' is above 'maxProperties'"
        )
    demanded = sum(each.required for each in fields.properties)
    if (high is not None and demanded > high) or (fields.extra is None and len(fields.properties) < low):
        part = holder(bases, "minProperties", "maxProperties")
        raise Impossible(context.parts.place(part), "it cannot have that many properties")
    if fields.extra is None:
        return _counted_named(
            context, bases, fields, low, min(high or 0, len(fields.properties)) if high is not None else None
        )
    if low <= demanded and high is None:
        return _plain_or(fields)
    if fields.properties or low > 1:
        context.give_up(holder(bases, "minProperties", "maxProperties"), _count_keyword(bases), _COUNTS)
        return _plain_or(fields)
    if context.may_use_grammar(holder(bases, "minProperties", "maxProperties"), _count_keyword(bases), _ONLY_GRAMMAR):
        return replace(fields, low=low, high=high)
    return _plain_or(fields)


def _count_keyword(bases: Bases) -> str:
    return "minProperties" if any("minProperties" in base for base in bases) else "maxProperties"


def _plain_or(fields: Fields) -> Value:
    """Return the fields, as the type alone where they say no more."""
    free = not fields.properties and fields.extra == ANY and fields.extra_names is None
    return Simple("object") if free and not fields.forbidden else fields


def _counted_named(context: Context, bases: Bases, fields: Fields, low: int, high: int | None) -> Value:
    required = [each for each in fields.properties if each.required]
    optional = [each for each in fields.properties if not each.required]
    if high is not None and high == len(required):
        context.changed()
        return replace(fields, properties=tuple(required))
    if (high is None or high >= len(fields.properties)) and low <= len(required):
        return fields
    if low == len(fields.properties):
        context.changed()
        return replace(fields, properties=tuple(replace(each, required=True) for each in fields.properties))
    if (
        required
        or (low, high) not in ((1, None), (1, len(optional)), (0, 1), (1, 1))
        or len(optional) > _MOST_NAMED_FIRST
    ):
        context.give_up(holder(bases, "minProperties", "maxProperties"), _count_keyword(bases), _COUNTS)
        return fields
    context.changed()
    choices: list[Value] = [replace(fields, properties=())] if low == 0 else []
    for index, first in enumerate(optional):
        following = () if high == 1 else tuple(optional[index + 1 :])
        choices.append(replace(fields, properties=(replace(first, required=True), *following)))
    return union_of(choices)
