"""Shapes of JSON values, each declared once: ``Text(1, 256)``, ``Number(0, 2)``, ``AnyOf(Text(), Array(TOKEN))``.

A shape has two results. Its ``check`` refuses a value that does not fit, in OpenAI's words and with the path of what is
wrong. Its ``json_schema`` says the same to the readers of ``/openapi.json``. Both are made once, when the shape is
declared: ``check`` is a closure over the checks of its parts, so that nothing is interpreted while a value is checked.
A path is built only when something is refused: each container puts its own step in front of it.

Arrays and objects are in :mod:`mistral_api.wire.container_shapes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from marshmallow import ValidationError

from mistral_api.payload_types import JsonObject
from mistral_api.wire.field_errors import add_path, quote_value, refuse, refuse_type, refuse_word

JsonSchema = JsonObject  # of draft 2020-12, the dialect of OpenAPI 3.1
Check = Callable[[Any], None]
Conversion = Callable[[Any], Any]
Limit = float | None
INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1


class Shape:
    """A check of a value, and the JSON schema of the values that pass it.

    ``types`` are the Python types of the values that can pass. ``convert``, where there is one, makes of a value that
    has passed what loading it returns; all other values are loaded as they are. Arrays, objects and alternatives apply
    the conversions of their parts. ``changed_types`` are the types of the values that it changes, all of them unless
    fewer are named.
    """

    def __init__(
        self,
        check: Check,
        json_schema: JsonSchema,
        *types: type,
        convert: Conversion | None = None,
        changed_types: tuple[type, ...] | None = None,
    ) -> None:
        self.check, self.json_schema, self.types, self.convert = check, json_schema, types, convert
        self.changed_types = () if convert is None else types if changed_types is None else changed_types

    def refined(self, check: Check) -> Shape:
        """Return this shape with a second check of the values that pass the first."""
        first = self.check

        def check_both(value: object) -> None:
            first(value)
            check(value)

        return Shape(check_both, self.json_schema, *self.types, convert=self.convert, changed_types=self.changed_types)

    def with_schema(self, schema: JsonSchema | Shape) -> Shape:
        """Return this shape with another JSON schema, maybe that of another shape."""
        json_schema = schema.json_schema if isinstance(schema, Shape) else schema
        return Shape(self.check, json_schema, *self.types, convert=self.convert, changed_types=self.changed_types)

    def with_keywords(self, **keywords: object) -> Shape:
        """Return this shape with more keywords in its JSON schema."""
        return self.with_schema(self.json_schema | keywords)

    def converted(self, convert: Conversion) -> Shape:
        """Return this shape with a conversion of the values that pass."""
        return Shape(self.check, self.json_schema, *self.types, convert=convert)

    @property
    def alternatives(self) -> list[JsonSchema]:
        """The JSON schemas of which a value has to fit one."""
        whole = self.json_schema
        return list(whole["anyOf"]) if set(whole) == {"anyOf"} else [whole]


def check_at(step: str, check: Check, value: object) -> None:
    """Check a part of a value; ``step`` leads to it, as in ``.name`` and ``[0]``."""
    try:
        check(value)
    except ValidationError as error:
        add_path(error, step)
        raise


def any_of(json_schemas: list[JsonSchema]) -> JsonSchema:
    """Return the JSON schema of the values that fit at least one of these."""
    return json_schemas[0] if len(json_schemas) == 1 else {"anyOf": json_schemas}


def pass_anything(_value: object) -> None:
    """Check nothing."""


def pass_through(value: Any) -> Any:
    """Convert nothing."""
    return value


ANYTHING = Shape(pass_anything, {}, str, bool, int, float, list, dict, type(None))


class Null(Shape):
    """``null`` alone; anything else is refused with this code, in these words."""

    def __init__(self, code: str = "invalid_value", text: str = "Invalid '{param}': expected null.") -> None:
        def check(value: object) -> None:
            if value is not None:
                refuse(code, text)

        super().__init__(check, {"type": "null"}, type(None))


class Text(Shape):
    """A string of so many characters, all of which match a pattern."""

    def __init__(self, low: int = 0, high: int | None = None, pattern: re.Pattern[str] | None = None) -> None:
        bounded = bool(low) or high is not None or pattern is not None

        def check(value: object) -> None:
            if not isinstance(value, str):
                refuse_type("a string", value)
            if bounded:
                check_bounds(value)

        def check_bounds(value: str) -> None:
            if len(value) < low:
                refuse("invalid_value", "Invalid '{param}': the string must not be empty.")
            if high is not None and len(value) > high:
                text = f"string too long. Expected at most {high} characters, but got {len(value)}."
                refuse("string_above_max_length", f"Invalid '{{param}}': {text}")
            if pattern is not None and not pattern.fullmatch(value):
                text = f"Invalid '{{param}}': '{quote_value(value)}' has characters that are not allowed."
                refuse("invalid_value", text)

        json_schema: JsonSchema = {"type": "string"}
        json_schema |= keywords(minLength=low or None, maxLength=high, pattern=pattern and whole_pattern(pattern))
        super().__init__(check, json_schema, str)


def whole_pattern(pattern: re.Pattern[str]) -> str:
    """Return the ``pattern`` keyword that demands of a whole string to match."""
    # Not every dialect of regular expressions knows "\0" as the NUL character.
    form = pattern.pattern.replace("\\0", "\\x00")
    return f"^(?:{form})$"


def keywords(**values: object) -> JsonSchema:
    """Return the keywords of a JSON schema that have a value."""
    return {name: value for name, value in values.items() if value is not None}


class StringEnum(Shape):
    """One of a few words. ``refuse_other`` refuses other strings where OpenAI's usual sentence does not fit."""

    def __init__(self, *words: str, refuse_other: Callable[[str], NoReturn] | None = None) -> None:
        known = frozenset(words)

        def check(value: object) -> None:
            if not isinstance(value, str):
                refuse_type("a string", value)
            if value not in known:
                (refuse_other or refuse_word_of)(value)

        def refuse_word_of(value: str) -> NoReturn:
            refuse_word(value, words)

        json_schema = {"const": words[0]} if len(words) == 1 else {"type": "string", "enum": list(words)}
        super().__init__(check, json_schema, str)


class Constant(Shape):
    """One value and no other; anything else is refused with this code, in these words."""

    def __init__(
        self, constant: str | bool, code: str = "invalid_value", text: str = "Unsupported value for '{param}'."
    ) -> None:
        def check(value: object) -> None:
            if value != constant or type(value) is not type(constant):
                refuse(code, text)

        super().__init__(check, {"const": constant}, type(constant))


class Boolean(Shape):
    """``true`` or ``false``."""

    def __init__(self) -> None:
        def check(value: object) -> None:
            if not isinstance(value, bool):
                refuse_type("a boolean", value)

        super().__init__(check, {"type": "boolean"}, bool)


class Integer(Shape):
    """A whole number within bounds. ``1.0`` is one, as in JSON schemas, and is loaded as 1; ``true`` is none."""

    def __init__(self, low: Limit = None, high: Limit = None) -> None:
        def check(value: object) -> None:
            _check_bounds(value if type(value) is int else _whole(value), low, high, "integer", value)

        json_schema = {"type": "integer"} | keywords(minimum=low, maximum=high)
        super().__init__(check, json_schema, int, float, convert=int, changed_types=(float,))


def _whole(value: object) -> int:
    """Return a decimal without a fraction as an integer; refuse anything else."""
    if type(value) is not float or not value.is_integer():
        refuse_type("an integer", value)
    return int(value)


class Number(Shape):
    """A finite number within bounds."""

    def __init__(self, low: Limit = None, high: Limit = None) -> None:
        def check(value: object) -> None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                refuse_type("a decimal", value)
            if isinstance(value, float) and not math.isfinite(value):
                refuse("invalid_value", "Invalid '{param}': expected a finite number.")
            _check_bounds(value, low, high, "decimal", value)

        super().__init__(check, {"type": "number"} | keywords(minimum=low, maximum=high), int, float)


def _check_bounds(value: float, low: Limit, high: Limit, kind: str, decoded: object) -> None:
    """Refuse a number out of bounds. ``decoded``: the value that it is of."""
    if low is not None and value < low:
        bound, words = "below_min_value", f"below minimum value. Expected a value >= {low}"
    elif high is not None and value > high:
        bound, words = "above_max_value", f"above maximum value. Expected a value <= {high}"
    else:
        return
    # Beyond 64 bits a number is decoded as a float, and has no more digits than that.
    shown = decoded if isinstance(decoded, float) and abs(decoded) > _INT64_MAX else value
    refuse(f"{kind}_{bound}", f"Invalid '{{param}}': {kind} {words}, but got {quote_value(shown)} instead.")


class AnyOf(Shape):
    """Values of any of these shapes, told apart by their JSON type where they differ in it.

    ``expected`` says what was expected to a client that sent no value of these types, as in "a string or an array";
    without it the last shape refuses the value.
    """

    def __init__(self, *shapes: Shape, expected: str = "") -> None:
        by_type: dict[type, list[Check]] = {}
        for shape in shapes:
            for kind in shape.types:
                by_type.setdefault(kind, []).append(shape.check)
        checks = {kind: found[0] if len(found) == 1 else _first_that_passes(found) for kind, found in by_type.items()}
        last = shapes[-1].check

        def check_other_type(value: object) -> None:
            if expected:
                refuse_type(expected, value)
            last(value)

        def check(value: object) -> None:
            checks.get(type(value), check_other_type)(value)

        conversions = {kind: shape.convert for shape in shapes if shape.convert for kind in shape.changed_types}

        def convert(value: object) -> object:
            convert_kind = conversions.get(type(value))
            return value if convert_kind is None else convert_kind(value)

        json_schemas = [each for shape in shapes for each in shape.alternatives]
        super().__init__(
            check,
            any_of(json_schemas),
            *by_type,
            convert=convert if conversions else None,
            changed_types=tuple(conversions),
        )


def _first_that_passes(checks: list[Check]) -> Check:
    *others, last = checks

    def check(value: object) -> None:
        for each in others:
            try:
                each(value)
            except ValidationError:
                continue
            return
        last(value)

    return check


class Nullable(AnyOf):
    """Values of a shape, or ``null``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(Null(), shape)
        self.json_schema = nullable_schema(shape.json_schema)


def nullable_schema(json_schema: JsonSchema) -> JsonSchema:
    """Return the JSON schema of the same values and null."""
    null: JsonSchema = {"type": "null"}
    if json_schema == null:
        return json_schema
    if isinstance(json_schema.get("type"), str) and not {"enum", "const"} & set(json_schema):
        return json_schema | {"type": [json_schema["type"], "null"]}
    if "anyOf" in json_schema:
        return json_schema | {"anyOf": [*json_schema["anyOf"], null]}
    return any_of([json_schema, null])


class Parsed(Shape):
    """A text that stands for a value of a shape, as in the arguments of a query; it is loaded as that value.

    ``parse`` makes the value of the text, or refuses it.
    """

    def __init__(self, parse: Conversion, shape: Shape) -> None:
        check_value = shape.check

        def check(text: object) -> None:
            check_value(parse(text))

        super().__init__(check, shape.json_schema, str, convert=parse)


class Component(Shape):
    """A shape that the OpenAPI document describes once, under a name, and refers to elsewhere."""

    def __init__(self, name: str, shape: Shape) -> None:
        reference = {"$ref": f"#/components/schemas/{name}"}
        super().__init__(shape.check, reference, *shape.types, convert=shape.convert, changed_types=shape.changed_types)
        self.name, self.definition = name, shape.json_schema


COUNT = Integer(0)
TOKEN = Integer(0, INT32_MAX)
UNIX_SECONDS = Integer().with_keywords(description="Unix seconds")
