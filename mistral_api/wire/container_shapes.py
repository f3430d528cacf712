"""Shapes of arrays and objects.

An object is declared as groups of fields, in the order in which they are checked: the first thing that is wrong is what
a client is told. Unknown fields pass. Between the groups stand rules, functions that refuse the whole object::

    Object(
        required(name=Text(1), arguments=Text()),  # both have to be there before either is checked
        nullable(id=Text()),  # may be absent; null counts as absent
        _refuse_reserved_name,
    )
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from marshmallow import ValidationError

from mistral_api.payload_types import JsonObject, without_nulls
from mistral_api.wire.field_errors import add_path, refuse, refuse_missing, refuse_type
from mistral_api.wire.shapes import (
    ANYTHING,
    TOKEN,
    AnyOf,
    Check,
    Conversion,
    JsonSchema,
    Shape,
    StringEnum,
    Text,
    any_of,
    check_at,
    keywords,
    nullable_schema,
    pass_anything,
    pass_through,
)

Rule = Callable[[JsonObject], None]
# A key in the path of a refused value is clipped to so many characters.
KEY_CHARACTERS = 40


class Array(Shape):
    """An array of so many items of a shape."""

    def __init__(self, item: Shape = ANYTHING, low: int = 0, high: int | None = None) -> None:
        check_item = item.check

        def check(value: object) -> None:
            if not isinstance(value, list):
                refuse_type("an array", value)
            if len(value) < low:
                refuse("empty_array", "Invalid '{param}': empty array. Expected an array with minimum length 1.")
            if high is not None and len(value) > high:
                text = f"Invalid '{{param}}': array too long. Expected at most {high} elements, but got {len(value)}."
                refuse("array_above_max_length", text)
            if check_item is not pass_anything:
                _check_each(value, check_item)

        json_schema: JsonSchema = {"type": "array", "items": item.json_schema}
        json_schema |= keywords(minItems=low or None, maxItems=high)
        super().__init__(
            check, json_schema, list, convert=item.convert and _convert_each(item.convert, item.changed_types)
        )


def _convert_each(convert: Conversion, changed_types: Iterable[type]) -> Conversion:
    """Return the conversion of an array, which stays the same one where no item of it can change."""
    changed = frozenset(changed_types)

    def convert_items(values: list[object]) -> list[object]:
        return values if changed.isdisjoint(map(type, values)) else [convert(value) for value in values]

    return convert_items


def _check_each(values: list[object], check: Check) -> None:
    """Check every item of an array."""
    index = 0
    try:
        for index, value in enumerate(values):  # noqa: B007  it is used where a check fails
            check(value)
    except ValidationError as error:
        add_path(error, f"[{index}]")
        raise


class Tuple(Shape):
    """An array of one value for each of these shapes; ``expected`` says so to a client that sent something else."""

    def __init__(self, *shapes: Shape, expected: str) -> None:
        def check(value: object) -> None:
            if not isinstance(value, list) or len(value) != len(shapes):
                refuse_type(expected, value)
            for index, (shape, each) in enumerate(zip(shapes, value, strict=True)):
                check_at(f"[{index}]", shape.check, each)

        conversions = [shape.convert or pass_through for shape in shapes]

        def convert(values: list[object]) -> list[object]:
            return [convert(value) for convert, value in zip(conversions, values, strict=True)]

        items = [shape.json_schema for shape in shapes]
        length = len(shapes)
        json_schema: JsonSchema = {"type": "array", "prefixItems": items, "minItems": length, "maxItems": length}
        converts = any(shape.convert for shape in shapes)
        super().__init__(check, json_schema, list, convert=convert if converts else None)


class Map(Shape):
    """An object of which every key has one shape and every value another, with at most so many pairs."""

    def __init__(self, key: Shape, value: Shape, most: int | None = None) -> None:
        check_key, check_value = key.check, value.check

        def check(pairs: object) -> None:
            if not isinstance(pairs, dict):
                refuse_type("an object", pairs)
            if most is not None and len(pairs) > most:
                text = f"Invalid '{{param}}': too many pairs. Expected at most {most}, but got {len(pairs)}."
                refuse("invalid_value", text)
            name = ""
            try:
                for name, each in pairs.items():
                    check_key(name)
                    check_value(each)
            except ValidationError as error:
                add_path(error, f".{name[:KEY_CHARACTERS]}")
                raise

        json_schema: JsonSchema = {"type": "object"} | keywords(maxProperties=most)
        json_schema |= {} if key is ANYTHING else {"propertyNames": key.json_schema}
        super().__init__(check, json_schema | {"additionalProperties": value.json_schema}, dict)


class FieldGroup:
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


def required(**shapes: Shape) -> FieldGroup:
    """Declare fields that have to be there; all are looked for before any is checked."""
    checks = _checks(shapes)

    def check(value: JsonObject) -> None:
        for name in shapes:
            if name not in value:
                refuse_missing(f".{name}")
        for name, check_field in checks:
            try:  # check_at written out, since every message goes through here
                check_field(value[name])
            except ValidationError as error:
                add_path(error, f".{name}")
                raise

    return FieldGroup(check, shapes, needed=tuple(shapes))


def not_null(*names: str, **shapes: Shape) -> FieldGroup:
    """Declare fields that have to be there, where null counts as missing; later groups check those in ``names``."""
    wanted, check_fields = (*shapes, *names), nullable(**shapes).check

    def check(value: JsonObject) -> None:
        for name in wanted:
            if value.get(name) is None:
                refuse_missing(f".{name}")
        check_fields(value)

    return FieldGroup(check, shapes, needed=wanted)


def required_or_checked_as(default: object, **shapes: Shape) -> FieldGroup:
    """Declare fields that have to be there, where an absent one is refused as if this value had been sent."""
    check_fields, defaults = required(**shapes).check, dict.fromkeys(shapes, default)

    def check(value: JsonObject) -> None:
        check_fields(defaults | value)

    return FieldGroup(check, shapes, needed=tuple(shapes))


def optional(**shapes: Shape) -> FieldGroup:
    """Declare fields that may be absent."""
    checks = _checks(shapes)

    def check(value: JsonObject) -> None:
        for name, check_field in checks:
            if name in value:
                check_at(f".{name}", check_field, value[name])

    return FieldGroup(check, shapes)


def nullable(**shapes: Shape) -> FieldGroup:
    """Declare fields that may be absent, where null counts as absent."""
    checks, all_absent = _checks(shapes), frozenset(shapes).isdisjoint

    def check(value: JsonObject) -> None:
        if all_absent(value):
            return
        for name, check_field in checks:
            field = value.get(name)
            if field is not None:
                try:  # check_at written out, since every message goes through here
                    check_field(field)
                except ValidationError as error:
                    add_path(error, f".{name}")
                    raise

    return FieldGroup(check, shapes, null=True)


def at_least_one(*names: str) -> FieldGroup:
    """Demand one of several fields of other groups; if all are absent or null, the first one is missing."""

    def check(value: JsonObject) -> None:
        if all(value.get(name) is None for name in names):
            refuse_missing(f".{names[0]}")

    return FieldGroup(check, {}, one_of=names)


def _checks(shapes: Mapping[str, Shape]) -> list[tuple[str, Check]]:
    return [(name, shape.check) for name, shape in shapes.items()]


class Object(Shape):
    """A JSON object with groups of fields and rules, or any JSON object.

    With ``drop_nulls`` it is loaded without its null fields, except for the one that ``keep_null`` names.
    """

    def __init__(self, *groups: FieldGroup | Rule, drop_nulls: bool = False, keep_null: str = "") -> None:
        self.groups = groups
        checks = _group_checks(groups)

        def check(value: object) -> None:
            if not isinstance(value, dict):
                refuse_type("an object", value)
            for check_group in checks:
                check_group(value)

        declared = [group for group in groups if isinstance(group, FieldGroup)]
        conversions = {
            name: shape.convert for group in declared for name, shape in group.shapes.items() if shape.convert
        }

        def convert(value: JsonObject) -> JsonObject:
            loaded = without_nulls(value, keep_null) if drop_nulls else value.copy()
            for name, convert_field in conversions.items():
                if loaded.get(name) is not None:
                    loaded[name] = convert_field(loaded[name])
            return loaded

        converting = drop_nulls or bool(conversions)
        super().__init__(check, any_of(_object_schemas(declared)), dict, convert=convert if converting else None)


def _group_checks(groups: Iterable[FieldGroup | Rule]) -> list[Rule]:
    return [group.check if isinstance(group, FieldGroup) else group for group in groups]


def _object_schemas(groups: list[FieldGroup]) -> list[JsonSchema]:
    """Return the JSON schemas of an object: one, or one for each field of which at least one has to be there."""
    needed = [name for group in groups for name in group.needed]
    alternatives = next((group.one_of for group in groups if group.one_of), None)
    if alternatives is None:
        return [_object_schema(groups, needed)]
    return [_object_schema(groups, [*needed, name]) for name in alternatives]


def _object_schema(groups: list[FieldGroup], needed: list[str]) -> JsonSchema:
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


class TaggedUnion(Shape):
    """Objects of several variants, which a field, the tag, tells apart.

    ``before`` are groups that all variants share. They are checked first, the tag among them; without any, the tag is
    required and one of the words of ``variants``. Nothing in a variant is converted.
    """

    def __init__(self, tag: str, variants: Mapping[str, Object], *before: FieldGroup | Rule) -> None:
        shared = before or (required(**{tag: StringEnum(*variants)}),)
        shared_checks, checks = _group_checks(shared), {word: variant.check for word, variant in variants.items()}

        def check(value: object) -> None:
            if not isinstance(value, dict):
                refuse_type("an object", value)
            for check_group in shared_checks:
                check_group(value)
            checks[value[tag]](value)

        tagged = [
            Object(*shared, required(**{tag: StringEnum(*words)}), *variant.groups)
            for words, variant in _distinct(variants)
        ]
        json_schemas = [json_schema for variant in tagged for json_schema in variant.alternatives]
        super().__init__(check, any_of(json_schemas), dict)


def _distinct(variants: Mapping[str, Object]) -> list[tuple[list[str], Object]]:
    """Return each variant once, after the words that it stands under."""
    found: dict[int, tuple[list[str], Object]] = {}
    for word, variant in variants.items():
        found.setdefault(id(variant), ([], variant))[0].append(word)
    return list(found.values())


class TextsOrTokens(Shape):
    """A string, an array of strings, an array of tokens, or an array of arrays of tokens; never a mixture.

    ``most`` is the most strings or arrays, ``low`` the fewest characters of a string.
    """

    def __init__(self, most: int, low: int = 0) -> None:
        text, tokens = Text(low), Array(TOKEN, 1)
        texts, prompts = Array(text, 1, most), Array(tokens, 1, most)

        def check(value: object) -> None:
            if isinstance(value, str):
                text.check(value)
            elif not isinstance(value, list):
                refuse_type("a string or an array", value)
            elif value and type(value[0]) in (int, float):
                tokens.check(value)
            else:
                (prompts if value and isinstance(value[0], list) else texts).check(value)

        def convert(value: str | list[object]) -> object:
            if isinstance(value, str):
                return value
            return convert_prompts(value) if value and isinstance(value[0], list) else convert_tokens(value)

        convert_prompts, convert_tokens = prompts.convert or pass_through, tokens.convert or pass_through
        json_schema = AnyOf(text, tokens, texts, prompts).json_schema
        super().__init__(check, json_schema, str, list, convert=convert, changed_types=(list,))
