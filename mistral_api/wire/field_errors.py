"""What is wrong with a field: OpenAI's code, a sentence, and where in the request it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn, cast

from marshmallow import ValidationError

SHOWN_CHARACTERS = 80
_WRITABLE = 10**60

_TYPE_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One problem. ``path`` is relative to the field it was found in, as in ``[0].role``.

    ``text`` may hold ``{param}``, which becomes the whole path of the field.
    """

    code: str
    text: str
    path: str = ""


def refuse(code: str, text: str, path: str = "", *, field: str = "_schema") -> NoReturn:
    """Raise marshmallow's ValidationError with one Issue in it.

    ``field`` is needed only where a check of the whole request refuses one of its fields.
    """
    raise ValidationError([Issue(code, text, path)], field_name=field)


def refuse_type(expected: str, value: object, path: str = "") -> NoReturn:
    """Refuse a value of the wrong JSON type."""
    got = _TYPE_NAMES.get(type(value), "something else")
    refuse("invalid_type", f"Invalid type for '{{param}}': expected {expected}, but got {got} instead.", path)


def refuse_value(allowed: str, value: str, path: str = "") -> NoReturn:
    """Refuse a value that is none of those allowed."""
    refuse(
        "invalid_value", f"Invalid value: '{quote_value(value)}'. Supported values for '{{param}}': {allowed}.", path
    )


def refuse_missing(path: str) -> NoReturn:
    """Refuse an object that lacks a field."""
    refuse("missing_required_parameter", "Missing required parameter: '{param}'.", path)


def add_path(error: ValidationError, step: str) -> None:
    """Put a step in front of the path of a refusal: what is wrong is in this part of a value."""
    issues = cast("list[Issue]", error.messages)
    error.messages = [replace(issue, path=step + issue.path) for issue in issues]


def quote_value(value: str | float) -> str:
    """A value in a message, clipped."""
    if not isinstance(value, str):
        # Python refuses to write out integers of thousands of digits.
        return repr(value) if -_WRITABLE < value < _WRITABLE else "a number beyond all bounds"
    return value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"


def quote_words(words: tuple[str, ...]) -> str:
    """A list of allowed words."""
    return ", ".join(f"'{word}'" for word in words)
