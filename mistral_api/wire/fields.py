"""Object, array, one of, text, number, nullable, tokens: declarations, their check and their JSON schema.

The kinds of fields in requests: marshmallow fields that refuse in OpenAI's words and codes.

They check and pass values on unchanged: what the client sent is what the model server gets, but for nulls
inside messages and tools.

Tokens, and the inputs that are text or tokens.
"""

from __future__ import annotations

import math
import re
from typing import Any

from marshmallow import fields

from mistral_api.wire.field_errors import quote_name, quote_value, refuse, refuse_type, refuse_value

Limit = float | None


def check_bounds(value: float, low: Limit, high: Limit, kind: str, path: str = "") -> None:
    """Refuse a number outside its bounds; ``kind`` is ``integer`` or ``decimal``."""
    if low is not None and value < low:
        bound, words = "below_min_value", f"below minimum value. Expected a value >= {low}"
    elif high is not None and value > high:
        bound, words = "above_max_value", f"above maximum value. Expected a value <= {high}"
    else:
        return
    refuse(f"{kind}_{bound}", f"Invalid '{{param}}': {kind} {words}, but got {quote_value(value)} instead.", path)


class CheckedField(fields.Field[Any]):
    """A field whose value passes unchanged if :meth:`check` lets it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raise ValidationError for a value that is not allowed."""
        raise NotImplementedError


class Integer(CheckedField):
    """A whole number within bounds; ``true`` and ``1.0`` are none."""

    def __init__(self, low: Limit = None, high: Limit = None, **options: Any) -> None:
        super().__init__(**options)
        self.low, self.high = low, high

    def check(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            refuse_type("an integer", value)
        check_bounds(value, self.low, self.high, "integer")


def check_number(value: Any, low: Limit = None, high: Limit = None, path: str = "") -> None:
    """Refuse what is no finite number, or one outside its bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse_type("a decimal", value, path)
    if isinstance(value, float) and not math.isfinite(value):
        refuse("invalid_value", "Invalid '{param}': expected a finite number.", path)
    check_bounds(value, low, high, "decimal", path)


class Number(CheckedField):
    """A number within bounds."""

    def __init__(self, low: Limit = None, high: Limit = None, **options: Any) -> None:
        super().__init__(**options)
        self.low, self.high = low, high

    def check(self, value: Any) -> None:
        check_number(value, self.low, self.high)


def check_boolean(value: Any, path: str = "") -> None:
    """Refuse what is neither ``true`` nor ``false``."""
    if not isinstance(value, bool):
        refuse_type("a boolean", value, path)


class Boolean(CheckedField):
    """``true`` or ``false``."""

    def check(self, value: Any) -> None:
        check_boolean(value)


class Text(CheckedField):
    """A string of bounded length, maybe of a certain form."""

    def __init__(
        self, low: int = 0, high: int | None = None, form: re.Pattern[str] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.low, self.high, self.form = low, high, form

    def check(self, value: Any) -> None:
        check_text(value, self.low, self.high)
        if self.form is not None and not self.form.fullmatch(value):
            refuse("invalid_value", f"Invalid '{{param}}': '{quote_value(value)}' has characters that are not allowed.")


def check_text(value: Any, low: int = 0, high: int | None = None, path: str = "") -> None:
    """Refuse what is no string, or one that is too short or too long."""
    if not isinstance(value, str):
        refuse_type("a string", value, path)
    if len(value) < low:
        refuse("invalid_value", "Invalid '{param}': the string must not be empty.", path)
    if high is not None and len(value) > high:
        text = f"Invalid '{{param}}': string too long. Expected at most {high} characters, but got {len(value)}."
        refuse("string_above_max_length", text, path)


class OneOf(CheckedField):
    """One of a few words."""

    def __init__(self, *words: str, **options: Any) -> None:
        super().__init__(**options)
        self.words = words

    def check(self, value: Any) -> None:
        check_choice(value, self.words)


def check_choice(value: Any, words: tuple[str, ...], path: str = "") -> None:
    """Refuse what is none of these words."""
    if not isinstance(value, str):
        refuse_type("a string", value, path)
    if value not in words:
        refuse_value(quote_name(words), value, path)


def without_nulls(value: dict[str, Any], keep: str = "") -> dict[str, Any]:
    """An object without its null fields but one: llama.cpp answers 500 to most nulls."""
    return {name: each for name, each in value.items() if each is not None or name == keep}


class Object(CheckedField):
    """Any JSON object."""

    def check(self, value: Any) -> None:
        check_object(value)


def check_object(value: Any, path: str = "") -> None:
    """Refuse what is no object."""
    if not isinstance(value, dict):
        refuse_type("an object", value, path)


def check_array(value: Any, low: int = 0, high: int | None = None, path: str = "") -> None:
    """Refuse what is no array, or one that is too short or too long."""
    if not isinstance(value, list):
        refuse_type("an array", value, path)
    if len(value) < low:
        refuse("empty_array", "Invalid '{param}': empty array. Expected an array with minimum length 1.", path)
    if high is not None and len(value) > high:
        text = f"Invalid '{{param}}': array too long. Expected at most {high} elements, but got {len(value)}."
        refuse("array_above_max_length", text, path)


class Array(CheckedField):
    """Any JSON array within a length."""

    def __init__(self, low: int = 0, high: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.low, self.high = low, high

    def check(self, value: Any) -> None:
        check_array(value, self.low, self.high)


class TextOrTexts(CheckedField):
    """A string, or an array of strings (``stop``), none empty: llama.cpp would stop at once."""

    def __init__(self, high: int, **options: Any) -> None:
        super().__init__(**options)
        self.high = high

    def check(self, value: Any) -> None:
        if isinstance(value, str):
            check_text(value, 1)
            return
        if not isinstance(value, list):
            refuse_type("a string or an array of strings", value)
        check_array(value, 0, self.high)
        for index, item in enumerate(value):
            check_text(item, 1, path=f"[{index}]")


def is_token(value: Any) -> bool:
    """Whether a value may be the id of a token."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_token(token: Any, path: str) -> None:
    """Refuse what cannot be the id of a token."""
    if not is_token(token):
        refuse_type("an integer", token, path)
    check_bounds(token, 0, 2**31 - 1, "integer", path)


def check_tokens(tokens: Any, low: int = 1, high: int | None = None, path: str = "") -> None:
    """Refuse what is no array of so many tokens."""
    check_array(tokens, low, high, path)
    for index, token in enumerate(tokens):
        check_token(token, f"{path}[{index}]")


def check_texts_or_tokens(value: Any, most: int, shortest: int = 0) -> None:
    """Refuse what is no string, array of strings, tokens, or array of arrays of tokens; a mixture is none of these.

    ``most``: of strings or arrays; ``shortest``: characters of a string.
    """
    if isinstance(value, str):
        check_text(value, shortest)
        return
    if not isinstance(value, list):
        refuse_type("a string or an array", value)
    check_array(value, 1)
    if is_token(value[0]):
        check_tokens(value)
        return
    check_array(value, 1, most)
    for index, each in enumerate(value):
        if isinstance(value[0], list):
            check_tokens(each, path=f"[{index}]")
        else:
            check_text(each, shortest, path=f"[{index}]")
