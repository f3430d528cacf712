"""What is wrong with a field of a request: OpenAI's code, a sentence, and the path of the place."""

from __future__ import annotations

from collections.abc import Iterable
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
    """One thing that is wrong.

    ``path`` leads to it from the value that was checked, as in ``[0].role``. In ``text``, ``{param}`` stands for the
    whole path, which begins with the name of the field.
    """

    code: str
    text: str
    path: str = ""


def refuse(code: str, text: str, path: str = "", *, field: str = "_schema") -> NoReturn:
    """Raise marshmallow's ValidationError with one Issue in it.

    ``field`` is needed only where a check of the whole request refuses one of its fields.
    """
    raise ValidationError([Issue(code, text, path)], field_name=field)


def refuse_type(expected: str, value: object) -> NoReturn:
    """Refuse a value of the wrong JSON type; ``expected`` has its article, as in "a string"."""
    got = _TYPE_NAMES.get(type(value), "something else")
    refuse("invalid_type", f"Invalid type for '{{param}}': expected {expected}, but got {got} instead.")


def refuse_word(value: str, words: Iterable[str]) -> NoReturn:
    """Refuse a string that is none of these words."""
    text = f"Invalid value: '{quote_value(value)}'. Supported values for '{{param}}': {quote_words(words)}."
    refuse("invalid_value", text)


def refuse_missing(path: str) -> NoReturn:
    """Refuse an object that lacks the field to which the path leads."""
    refuse("missing_required_parameter", "Missing required parameter: '{param}'.", path)


def add_path(error: ValidationError, step: str) -> None:
    """Put a step in front of the path of a refusal: what is wrong is in this part of a value."""
    issues = cast("list[Issue]", error.messages)
    error.messages = [replace(issue, path=step + issue.path) for issue in issues]


def quote_value(value: str | float) -> str:
    """Return a value as error messages show it, clipped."""
    if not isinstance(value, str):
        # Python refuses to write out integers of thousands of digits.
        return repr(value) if -_WRITABLE < value < _WRITABLE else "a number beyond all bounds"
    return value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"


def add_key(path: str, name: str) -> str:
    """Return the path of the value that an object has under a name, clipped; a path is empty for the whole body."""
    return f"{path}.{quote_value(name)}" if path else quote_value(name)


def quote_words(words: Iterable[str]) -> str:
    """Return words as error messages list them."""
    return ", ".join(f"'{word}'" for word in words)
