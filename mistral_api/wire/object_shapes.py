"""Shapes of JSON objects: named fields, and variants told apart by one of them. Unknown fields pass.

An object is declared as groups of fields, in the order in which they are checked: the first thing that is wrong is what
a client is told. Between the groups stand rules, functions that refuse the whole object::

    Object(
        required(name=Text(1), arguments=Text()),  # both have to be there before either is checked
        nullable(id=Text()),  # may be absent; null counts as absent
        _refuse_reserved_name,
    )
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from marshmallow import ValidationError

from mistral_api.wire.field_errors import add_path, refuse_missing, refuse_type
from mistral_api.wire.shapes import Check, JsonSchema, Shape, Word, any_of, check_at, nullable_schema

Rule = Callable[[dict[str, Any]], None]


class Fields:
    """A group of fields of an object: their check, and what a JSON schema has to say of them.

    ``needed`` names fields, of this group or others, that have to be there; of those in ``one_of`` at least one has to.
    ``null`` is whether fields that need not be there may be null.
    """

    def __init__(
        self,
        check: Rule,
        shapes: Mapping[str, Shape],
        *,
        needed: tuple[str, ...] = (),
        null: bool = False,
        one_of: tuple[str, ...] = (),
    ) -> None:
        self.check, self.shapes, self.needed, self.null, self.one_of = check, shapes, needed, null, one_of


def required(**shapes: Shape) -> Fields:
    """Declare fields that have to be there; all are looked for before any is checked."""
    checks = _checks(shapes)

    def check(value: dict[str, Any]) -> None:
        for name in shapes:
            if name not in value:
                refuse_missing(f".{name}")
        for name, check_field in checks:
            try:
                check_field(value[name])
            except ValidationError as error:
                add_path(error, f".{name}")
                raise

    return Fields(check, shapes, needed=tuple(shapes))


def not_null(*names: str, **shapes: Shape) -> Fields:
    """Declare fields that have to be there, where null counts as missing; later groups check those in ``names``."""
    wanted, check_fields = (*shapes, *names), nullable(**shapes).check

    def check(value: dict[str, Any]) -> None:
        for name in wanted:
            if value.get(name) is None:
                refuse_missing(f".{name}")
        check_fields(value)

    return Fields(check, shapes, needed=wanted)


def absent_as(default: object, **shapes: Shape) -> Fields:
    """Declare fields that have to be there, where an absent one is refused as if this value had been sent."""
    check_fields, defaults = required(**shapes).check, dict.fromkeys(shapes, default)

    def check(value: dict[str, Any]) -> None:
        check_fields(defaults | value)

    return Fields(check, shapes, needed=tuple(shapes))


def optional(**shapes: Shape) -> Fields:
    """Declare fields that may be absent."""
    checks = _checks(shapes)

    def check(value: dict[str, Any]) -> None:
        for name, check_field in checks:
            if name in value:
                check_at(f".{name}", check_field, value[name])

    return Fields(check, shapes)


def nullable(**shapes: Shape) -> Fields:
    """Declare fields that may be absent, where null counts as absent."""
    checks, all_absent = _checks(shapes), frozenset(shapes).isdisjoint

    def check(value: dict[str, Any]) -> None:
        if all_absent(value):
            return
        for name, check_field in checks:
            field = value.get(name)
            if field is not None:
                try:
                    check_field(field)
                except ValidationError as error:
                    add_path(error, f".{name}")
                    raise

    return Fields(check, shapes, null=True)


def at_least_one(*names: str) -> Fields:
    """Demand one of several fields of other groups; if all are absent or null, the first one is missing."""

    def check(value: dict[str, Any]) -> None:
        if all(value.get(name) is None for name in names):
            refuse_missing(f".{names[0]}")

    return Fields(check, {}, one_of=names)


def _checks(shapes: Mapping[str, Shape]) -> list[tuple[str, Check]]:
    return [(name, shape.check) for name, shape in shapes.items()]


def without_nulls(value: dict[str, Any], keep: str = "") -> dict[str, Any]:
    """Return an object without its null fields but one: llama.cpp answers 500 to most nulls."""
    if None not in value.values():
        return value.copy()
    return {name: field for name, field in value.items() if field is not None or name == keep}


class Object(Shape):
    """A JSON object with groups of fields and rules, or any JSON object.

    With ``drop_nulls`` it is loaded without its null fields, except for the one that ``keep_null`` names.
    """

    def __init__(self, *groups: Fields | Rule, drop_nulls: bool = False, keep_null: str = "") -> None:
        self.groups = groups
        checks = _group_checks(groups)

        def check(value: object) -> None:
            if not isinstance(value, dict):
                refuse_type("an object", value)
            for check_group in checks:
                check_group(value)

        declared = [group for group in groups if isinstance(group, Fields)]
        conversions = {
            name: shape.convert for group in declared for name, shape in group.shapes.items() if shape.convert
        }

        def convert(value: dict[str, Any]) -> dict[str, Any]:
            loaded = without_nulls(value, keep_null) if drop_nulls else value.copy()
            for name, convert_field in conversions.items():
                if loaded.get(name) is not None:
                    loaded[name] = convert_field(loaded[name])
            return loaded

        converting = drop_nulls or bool(conversions)
        super().__init__(check, any_of(_object_schemas(declared)), dict, convert=convert if converting else None)


def _group_checks(groups: Iterable[Fields | Rule]) -> list[Rule]:
    return [group.check if isinstance(group, Fields) else group for group in groups]


def _object_schemas(groups: list[Fields]) -> list[JsonSchema]:
    """Return the JSON schemas of an object: one, or one for each field of which at least one has to be there."""
    needed = [name for group in groups for name in group.needed]
    alternatives = next((group.one_of for group in groups if group.one_of), None)
    if alternatives is None:
        return [_object_schema(groups, needed)]
    return [_object_schema(groups, [*needed, name]) for name in alternatives]


def _object_schema(groups: list[Fields], needed: list[str]) -> JsonSchema:
    shapes = {name: shape for group in groups for name, shape in group.shapes.items()}
    if not shapes:
        return {"type": "object"}
    properties = {
        name: nullable_schema(shape.json_schema) if group.null else shape.json_schema
        for group in groups
        for name, shape in group.shapes.items()
        if name not in group.needed
    }
    properties |= {name: shapes[name].json_schema for name in needed}
    json_schema: JsonSchema = {"type": "object", "properties": properties}
    return json_schema | ({"required": list(dict.fromkeys(needed))} if needed else {})


class Tagged(Shape):
    """Objects of several variants, which a field, the tag, tells apart.

    ``before`` are groups that all variants share. They are checked first, the tag among them; without any, the tag is
    required and one of the words of ``variants``.
    """

    def __init__(self, tag: str, variants: Mapping[str, Object], *before: Fields | Rule) -> None:
        shared = before or (required(**{tag: Word(*variants)}),)
        shared_checks, checks = _group_checks(shared), {word: variant.check for word, variant in variants.items()}

        def check(value: object) -> None:
            if not isinstance(value, dict):
                refuse_type("an object", value)
            for check_group in shared_checks:
                check_group(value)
            checks[value[tag]](value)

        tagged = [
            Object(*shared, required(**{tag: Word(*words)}), *variant.groups) for words, variant in _distinct(variants)
        ]
        json_schemas = [json_schema for variant in tagged for json_schema in variant.alternatives]
        super().__init__(check, any_of(json_schemas), dict)


def _distinct(variants: Mapping[str, Object]) -> list[tuple[list[str], Object]]:
    """Return each variant once, after the words that it stands under."""
    found: dict[int, tuple[list[str], Object]] = {}
    for word, variant in variants.items():
        found.setdefault(id(variant), ([], variant))[0].append(word)
    return list(found.values())
