"""What is made of a body that a strict decoder refuses: halves of surrogate pairs, and numbers beyond all bounds.

Clients cut texts in the middle of an emoji (JavaScript's strings are made of surrogates), and what they send then is no
Unicode: neither UTF-8 nor PostgreSQL can hold it. U+FFFD stands for each such half. A number that is none in JSON, or
that no float can hold, is refused by its field. An integer that is a field of the body itself is left to that field's
own check, as the largest float: it alone knows what is expected. Nothing here runs for a body that is decoded as it is.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any

import orjson

from mistral_api.errors import InvalidRequest
from mistral_api.wire.field_errors import quote_value

_REPLACEMENT = "\ufffd".encode()
# Stands for two backslashes while escapes are looked for. In a JSON text it may stand nowhere.
_BACKSLASHES = b"\0\0"
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPED_HALF = re.compile(rb"%s(?!%s)|(?<!%s)%s" % (_HIGH, _LOW, _HIGH, _LOW))
# The three bytes that a half would be in UTF-8. Their first byte begins a character wherever it stands.
_WRITTEN_HALF = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
# More digits than those of the largest float.
_MOST_DIGITS = 400


def without_halves(content: bytes) -> bytes:
    """Return a JSON text with U+FFFD for each half of a surrogate pair, the same text where it has none."""
    content = _WRITTEN_HALF.sub(_REPLACEMENT, content)
    if b"\\u" not in content or b"\0" in content:
        return content
    escapes = content.replace(rb"\\", _BACKSLASHES)
    return _ESCAPED_HALF.sub(_REPLACEMENT, escapes).replace(_BACKSLASHES, rb"\\")


class _Unusable:
    """Stands for a number that cannot be used; ``text`` is how it was written."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def is_integer(self) -> bool:
        return self.text.lstrip("-").isdigit()

    @property
    def nearest(self) -> float:
        """The float that is nearest to an integer."""
        return -sys.float_info.max if self.text.startswith("-") else sys.float_info.max


def decode_large_integers(content: bytes) -> Any:
    """Return a decoded object whose own fields that are too large integers are the largest float.

    Raises InvalidRequest for another number that is none in JSON (``NaN``), or larger than any; the field is named.
    Raises ValueError or RecursionError where the body is wrong in another way.
    """
    found: list[_Unusable] = []
    body = _decode_with_marks(content, found)
    if isinstance(body, dict):
        for name, value in body.items():
            if isinstance(value, _Unusable) and value.is_integer:
                found.remove(value)
                body[name] = value.nearest
    if found:
        raise _refusal(found[0], _path_to(found[0], body, ""))
    return body


def _refusal(number: _Unusable, path: str | None) -> InvalidRequest:
    where = f"Invalid '{path}'" if path else "Invalid request"
    if not number.is_integer:
        text = f"{where}: expected a finite number, but got {quote_value(number.text)} instead."
        return InvalidRequest(text, code="invalid_value", param=path or None)
    bound = "below_min_value" if number.text.startswith("-") else "above_max_value"
    text = f"{where}: the integer has {len(number.text.lstrip('-'))} digits, more than any number may have."
    return InvalidRequest(text, code=f"integer_{bound}", param=path or None)


def _decode_with_marks(content: bytes, found: list[_Unusable]) -> Any:
    """Decode a body with a mark in the place of each number that cannot be used. Raises ValueError."""

    def mark(text: str) -> _Unusable:
        found.append(_Unusable(text))
        return found[-1]

    def read_float(text: str) -> float | _Unusable:
        number = float(text)
        return number if math.isfinite(number) else mark(text)

    def read_integer(text: str) -> int | _Unusable:
        return int(text) if len(text) < _MOST_DIGITS and math.isfinite(float(text)) else mark(text)

    return json.loads(content.decode(), parse_constant=mark, parse_float=read_float, parse_int=read_integer)


def _path_to(wanted: _Unusable, value: Any, path: str) -> str | None:
    """Return the path from a decoded body to a mark in it."""
    if value is wanted:
        return path
    if isinstance(value, dict):
        steps = [(f"{path}.{quote_value(name)}".removeprefix("."), each) for name, each in value.items()]
    elif isinstance(value, list):
        steps = [(f"{path}[{index}]", each) for index, each in enumerate(value)]
    else:
        return None
    return next((found for step, each in steps if (found := _path_to(wanted, each, step)) is not None), None)


def decode_repaired(content: bytes) -> tuple[Any, bytes]:
    """Return what a body means that a strict decoder has refused, and the body that says so.

    Raises orjson.JSONDecodeError where it cannot be repaired, and InvalidRequest for a number that cannot be used.
    """
    repaired = without_halves(content)
    try:
        return orjson.loads(repaired), repaired
    except orjson.JSONDecodeError as error:
        try:
            return decode_large_integers(repaired), repaired
        except (ValueError, RecursionError):  # it is no JSON for another reason
            raise error from None
