"""Shapes of JSON values, each declared once: ``Text(1, 256)``, ``Array(Integer(0))``, ``AnyOf(Text(), Array(TOKEN))``.

A shape has two results. Its ``check`` refuses a value that does not fit, in OpenAI's words and with the path of the
place that is wrong. Its ``json_schema`` says the same to readers of ``/openapi.json``. Both are made when the shape is
declared, so that checking a value does not interpret anything: ``check`` is a closure over the closures of the parts.
A path is built only when something is refused: each container adds its own step on the way out.

Objects are declared in :mod:`mistral_api.wire.object_shapes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from marshmallow import ValidationError

from mistral_api.wire.field_errors import add_path, quote_value, quote_words, refuse, refuse_type, refuse_value

JsonSchema = dict[str, Any]  # draft 2020-12, the dialect of OpenAPI 3.1
Check = Callable[[Any], None]
Conversion = Callable[[Any], Any]
Limit = float | None
# A key in the path of a refused value is clipped to so many characters.
KEY_CHARACTERS = 40
INT32 = 2**31 - 1


class Shape:
    """A check of a value and a JSON schema of the values that pass it.

    ``types``: the Python types of the JSON values that can pass. ``convert``, where there is one, makes of a value that
    has passed what loading returns; all other values are loaded as they are.
    """

    def __init__(self, check: Check, json_schema: JsonSchema, *types: type, convert: Conversion | None = None) -> None:
        self.check, self.json_schema, self.types, self.convert = check, json_schema, types, convert

    def refined(self, check: Check) -> Shape:
        """Return this shape with a second check of the values that pass the first."""
        first = self.check

        def check_both(value: object) -> None:
            first(value)
            check(value)

        return Shape(check_both, self.json_schema, *self.types, convert=self.convert)

    def with_schema(self, json_schema: JsonSchema) -> Shape:
        """Return this shape with another JSON schema, where the checks say more than its parts do."""
        return Shape(self.check, json_schema, *self.types, convert=self.convert)

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


def any_of(json_schemas: list[JsonSchema]) -> JsonSchema:
    """Return the JSON schema of the values that fit at least one of these."""
    return json_schemas[0] if len(json_schemas) == 1 else {"anyOf": json_schemas}


def pass_anything(_value: object) -> None:
    """Check nothing."""


ANYTHING = Shape(pass_anything, {}, str, bool, int, float, list, dict, type(None))


class Null(Shape):
    """``null`` alone; anything else is refused with this code, in these words."""

    def __init__(self, code: str = "invalid_value", text: str = "Invalid '{param}': expected null.") -> None:
        def check(value: object) -> None:
            if value is not None:
                refuse(code, text)

        super().__init__(check, {"type": "null"}, type(None))


class Nullable(Shape):
    """Values of a shape, or ``null``."""

    def __init__(self, shape: Shape) -> None:
        check_value = shape.check

        def check(value: object) -> None:
            if value is not None:
                check_value(value)

        super().__init__(check, nullable_schema(shape.json_schema), *shape.types, type(None))


def nullable_schema(json_schema: JsonSchema) -> JsonSchema:
    """Return the JSON schema of the same values and null."""
    null: JsonSchema = {"type": "null"}
    if isinstance(json_schema.get("type"), str) and not {"enum", "const"} & set(json_schema):
        return json_schema | {"type": [json_schema["type"], "null"]}
    if "anyOf" in json_schema:
        return json_schema | {"anyOf": [*json_schema["anyOf"], null]}
    return any_of([json_schema, null])


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
        json_schema |= _given(minLength=low or None, maxLength=high, pattern=pattern and whole_pattern(pattern))
        super().__init__(check, json_schema, str)


def whole_pattern(pattern: re.Pattern[str]) -> str:
    """Return the ``pattern`` keyword that demands of a whole string to match."""
    # Not every dialect of regular expressions knows "\0" as the NUL character.
    form = pattern.pattern.replace("\\0", "\\x00")
    return f"^(?:{form})$"


def _given(**keywords: object) -> JsonSchema:
    return {name: value for name, value in keywords.items() if value is not None}


class Word(Shape):
    """One of a few words. ``refuse_other`` refuses other strings where OpenAI's usual sentence does not fit."""

    def __init__(self, *words: str, refuse_other: Callable[[str], NoReturn] | None = None) -> None:
        known = frozenset(words)

        def check(value: object) -> None:
            if not isinstance(value, str):
                refuse_type("a string", value)
            if value not in known:
                (refuse_other or refuse_usually)(value)

        def refuse_usually(value: str) -> NoReturn:
            refuse_value(quote_words(words), value)

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
    """A whole number within bounds; ``true`` and ``1.0`` are none."""

    def __init__(self, low: Limit = None, high: Limit = None) -> None:
        def check(value: object) -> None:
            if isinstance(value, bool) or not isinstance(value, int):
                refuse_type("an integer", value)
            _check_bounds(value, low, high, "integer")

        super().__init__(check, {"type": "integer"} | _given(minimum=low, maximum=high), int)


class Number(Shape):
    """A finite number within bounds."""

    def __init__(self, low: Limit = None, high: Limit = None) -> None:
        def check(value: object) -> None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                refuse_type("a decimal", value)
            if isinstance(value, float) and not math.isfinite(value):
                refuse("invalid_value", "Invalid '{param}': expected a finite number.")
            _check_bounds(value, low, high, "decimal")

        super().__init__(check, {"type": "number"} | _given(minimum=low, maximum=high), int, float)


def _check_bounds(value: float, low: Limit, high: Limit, kind: str) -> None:
    if low is not None and value < low:
        bound, words = "below_min_value", f"below minimum value. Expected a value >= {low}"
    elif high is not None and value > high:
        bound, words = "above_max_value", f"above maximum value. Expected a value <= {high}"
    else:
        return
    refuse(f"{kind}_{bound}", f"Invalid '{{param}}': {kind} {words}, but got {quote_value(value)} instead.")


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
                check_each(value, check_item)

        json_schema: JsonSchema = {"type": "array", "items": item.json_schema}
        json_schema |= _given(minItems=low or None, maxItems=high)
        super().__init__(check, json_schema, list, convert=item.convert and _convert_each(item.convert))


def _convert_each(convert: Conversion) -> Conversion:
    return lambda values: [convert(value) for value in values]


def check_at(step: str, check: Check, value: object) -> None:
    """Check a part of a value; ``step`` leads to it, as in ``.name`` and ``[0]``."""
    try:
        check(value)
    except ValidationError as error:
        add_path(error, step)
        raise


def check_each(values: list[Any], check: Check) -> None:
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

        items = [shape.json_schema for shape in shapes]
        length = len(shapes)
        super().__init__(check, {"type": "array", "prefixItems": items, "minItems": length, "maxItems": length}, list)


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

        json_schema: JsonSchema = {"type": "object"} | _given(maxProperties=most)
        json_schema |= {} if key is ANYTHING else {"propertyNames": key.json_schema}
        super().__init__(check, json_schema | {"additionalProperties": value.json_schema}, dict)


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

        def refuse_other(value: object) -> None:
            if expected:
                refuse_type(expected, value)
            last(value)

        def check(value: object) -> None:
            checks.get(type(value), refuse_other)(value)

        conversions = {kind: shape.convert for shape in shapes if shape.convert for kind in shape.types}

        def convert(value: object) -> object:
            convert_kind = conversions.get(type(value))
            return value if convert_kind is None else convert_kind(value)

        json_schemas = [each for shape in shapes for each in shape.alternatives]
        super().__init__(check, any_of(json_schemas), *by_type, convert=convert if conversions else None)


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


class Parsed(Shape):
    """A text that stands for a value of a shape, as in the arguments of a query; it is loaded as that value.

    ``parse`` makes the value of the text, or refuses it.
    """

    def __init__(self, parse: Conversion, shape: Shape) -> None:
        check_value = shape.check

        def check(text: object) -> None:
            check_value(parse(text))

        super().__init__(check, shape.json_schema, str, convert=parse)


TOKEN = Integer(0, INT32)


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
            elif value and type(value[0]) is int:
                tokens.check(value)
            else:
                (prompts if value and isinstance(value[0], list) else texts).check(value)

        super().__init__(check, AnyOf(text, tokens, texts, prompts).json_schema, str, list)


class Component(Shape):
    """A shape that the OpenAPI document describes once, under a name, and refers to elsewhere."""

    def __init__(self, name: str, shape: Shape) -> None:
        super().__init__(shape.check, {"$ref": f"#/components/schemas/{name}"}, *shape.types, convert=shape.convert)
        self.name, self.definition = name, shape.json_schema


COUNT = Integer(0)
UNIX_SECONDS = Integer().with_keywords(description="Unix seconds")
