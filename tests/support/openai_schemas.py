"""Check bodies against OpenAI's published schemas: the types of the ``openai`` package, in strict mode."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter

T = TypeVar("T")


def validate(kind: type[T], body: bytes | Any) -> T:
    """Return the body as an object of that type. Fails where a field is missing or has another JSON type.

    ``body``: JSON as it came, or decoded. ``kind``: a model of the package, or a union of models.
    """
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    return TypeAdapter(kind).validate_json(text, strict=True)
