"""The JSON schema of every request field accepts exactly what the field's own check accepts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest
from marshmallow import ValidationError

from mistral_api.web.operations import OPERATIONS
from mistral_api.wire.llama_cpp import SlotFileRequest
from mistral_api.wire.queries import Query
from mistral_api.wire.request_schema import Field, RequestSchema
from mistral_api.wire.sampling import ADAPTERS, SERVER_OWNED
from mistral_api.wire.shapes import Shape
from tests.support.schema_values import mutate, random_value

VALUES = 150
# A rule that no JSON schema can express: that some value satisfies a JSON schema.
_BEYOND_SCHEMAS = {"invalid_json_schema"}


def _schemas() -> list[type[RequestSchema[Any]]]:
    found = [kind for each in OPERATIONS.values() for kind in (each.request, each.query) if kind is not None]
    return [*dict.fromkeys(found), SlotFileRequest]


def _shapes(*, queries: bool) -> Iterator[Any]:
    """Yield every shape with a distinct JSON schema once, under the first name it has."""
    seen = set()
    for kind in _schemas():
        for name, field in kind().fields.items():
            assert isinstance(field, Field)
            described = orjson.dumps(field.shape.json_schema)
            if issubclass(kind, Query) is queries and described not in seen:
                seen.add(described)
                yield pytest.param(field.shape, id=f"{kind.__name__}.{name}")


def _refusals(shape: Shape, value: Any) -> set[str]:
    """Return the codes with which a shape refuses a value; empty if it accepts the value."""
    try:
        shape.check(value)
    except ValidationError as error:
        issues: list[Any] = list(error.messages)
        return {issue.code for issue in issues}
    return set()


def _values(shape: Shape) -> Iterator[Any]:
    """Yield values that the shape allows and variations of them; null is omitted because it counts as absent."""
    chance = random.Random(VALUES)
    for _ in range(VALUES):
        value = random_value(shape.json_schema, chance)
        for each in (value, mutate(value, chance), mutate(mutate(value, chance), chance)):
            if each is not None:
                yield each


@pytest.mark.parametrize("shape", [*_shapes(queries=False), pytest.param(ADAPTERS, id="adapters")])
def test_body_field_accepts_exactly_what_its_schema_allows(shape: Shape) -> None:
    validator = jsonschema_rs.Draft202012Validator(shape.json_schema)
    allowed = refused = 0
    for value in _values(shape):
        codes = _refusals(shape, value)
        assert validator.is_valid(value) is not bool(codes) or codes & _BEYOND_SCHEMAS, (value, codes)
        allowed, refused = allowed + (not codes), refused + bool(codes)
    assert allowed > VALUES / 10 or shape is SERVER_OWNED
    assert refused > VALUES / 10


@pytest.mark.parametrize("shape", list(_shapes(queries=True)))
def test_query_argument_accepts_exactly_the_text_its_schema_allows(shape: Shape) -> None:
    schema = shape.json_schema
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    outcomes = set()
    for value in _values(shape):
        # An argument is a text. A string schema describes the text itself, any other schema the value it stands for.
        text = value if isinstance(value, str | dict | list) else orjson.dumps(value).decode()
        if isinstance(text, str) == (schema["type"] not in ("object", "array")):
            meant = text if schema["type"] == "string" else value
            codes = _refusals(shape, text)
            assert validator.is_valid(meant) is not bool(codes), (text, codes)
            outcomes.add(bool(codes))
    assert outcomes == {True, False}
