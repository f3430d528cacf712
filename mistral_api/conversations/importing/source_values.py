"""Values of foreign JSON, read with care: a field that is missing or of another type counts as absent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from mistral_api.conversations.importing.imported import MalformedConversation
from mistral_api.payload_types import JsonObject

_INT32_MAX = 2**31 - 1
_LAST_SECOND = 253_402_300_799  # of the year 9999


def object_of(value: object) -> JsonObject:
    """Return a value that is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects_of(value: object) -> list[JsonObject]:
    """Return the objects of a list; none where the value is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Return a value that is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def optional_text(value: object) -> str | None:
    """Return a value that is a string with anything in it, else None."""
    return value if isinstance(value, str) and value else None


def count_of(value: object) -> int | None:
    """Return a value that is a count of tokens, else None."""
    return value if type(value) is int and 0 <= value <= _INT32_MAX else None


def require_object(payload: Mapping[str, Any], name: str) -> JsonObject:
    """Return a field that has to be an object. Raises MalformedConversation, which names it."""
    value = payload.get(name)
    if not isinstance(value, dict):
        raise MalformedConversation(f"has no object '{name}'")
    return value


def time_of(value: object) -> datetime | None:
    """Return a time: Unix seconds, milli-, micro- or nanoseconds, or a text as of ISO 8601; None for anything else."""
    if isinstance(value, str):
        return _parse_time(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    seconds = float(value)
    while seconds > _LAST_SECOND and math.isfinite(seconds):
        seconds /= 1000
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds <= _LAST_SECOND else None


def _parse_time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def json_text(value: object) -> str:
    """Return the arguments or the result of a tool as text: a string as it is, anything else as JSON.

    Raises MalformedConversation for a value that is nested too deeply.
    """
    try:
        return value if isinstance(value, str) else orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise MalformedConversation("has a tool call whose JSON is nested too deeply") from error


def plain_numbers(value: Any) -> Any:
    """Return a JSON value with plain numbers, changed in place; it may nest at any depth.

    A Decimal becomes a float, and an integer of more than 64 bits its digits, for no other program would read it.
    """
    stack: list[Any] = [value]
    while stack:
        container = stack.pop()
        pairs = list(container.items() if isinstance(container, dict) else enumerate(container))
        for key, each in pairs:
            if isinstance(each, Decimal):
                container[key] = float(each)
            elif isinstance(each, dict | list):
                stack.append(each)
            elif isinstance(each, int) and not -(2**63) <= each < 2**63:
                container[key] = str(each)
    return value
