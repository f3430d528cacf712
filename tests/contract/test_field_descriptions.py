"""The schema that describes a request field accepts exactly what the field's own check accepts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest
from marshmallow import Schema, ValidationError
from marshmallow.fields import Field

from mistral_api.web.operations import OPERATIONS
from mistral_api.wire.llama_cpp import AdapterScales, SlotFileRequest
from mistral_api.wire.openapi_fields import DESCRIBERS, shape_of
from mistral_api.wire.queries import Query
from mistral_api.wire.sampling import ServerOwnedField
from tests.support.schema_values import mutate, random_value

VALUES = 150
# A rule that no schema can express: that some value satisfies a JSON schema.
_BEYOND_SCHEMAS = {"invalid_json_schema"}


def _schemas() -> list[type[Schema]]:
    found = [kind for each in OPERATIONS.values() for kind in (each.request, each.query) if kind is not None]
    return [*dict.fromkeys(found), SlotFileRequest]


def _fields(*, queries: bool) -> Iterator[Any]:
    """Yield every field with a distinct schema once, under the first name it has."""
    seen = set()
    for kind in _schemas():
        for name, field in kind().fields.items():
            described = orjson.dumps([type(field).__qualname__, shape_of(field)])
            if issubclass(kind, Query) is queries and described not in seen:
                seen.add(described)
                yield pytest.param(field, id=f"{kind.__name__}.{name}")


def _refusals(field: Field[Any], value: Any) -> set[str]:
    """Return the codes with which a field refuses a value; empty if it accepts the value."""
    try:
        field.deserialize(value)
    except ValidationError as error:
        issues: list[Any] = list(error.messages)
        return {issue.code for issue in issues}
    return set()


def _values(field: Field[Any]) -> Iterator[Any]:
    """Yield values that the field allows and variations of them; null is omitted because it counts as absent."""
    chance, shape = random.Random(VALUES), shape_of(field)
    for _ in range(VALUES):
        value = random_value(shape, chance)
        for each in (value, mutate(value, chance), mutate(mutate(value, chance), chance)):
            if each is not None:
                yield each


@pytest.mark.parametrize("field", [*_fields(queries=False), pytest.param(AdapterScales(), id="adapters")])
def test_body_field_accepts_exactly_what_its_schema_allows(field: Field[Any]) -> None:
    validator = jsonschema_rs.Draft202012Validator(shape_of(field))
    allowed = refused = 0
    for value in _values(field):
        codes = _refusals(field, value)
        assert validator.is_valid(value) is not bool(codes) or codes & _BEYOND_SCHEMAS, (value, codes)
        allowed, refused = allowed + (not codes), refused + bool(codes)
    assert allowed > VALUES / 10 or isinstance(field, ServerOwnedField)
    assert refused > VALUES / 10


@pytest.mark.parametrize("field", list(_fields(queries=True)))
def test_query_argument_accepts_exactly_the_text_its_schema_allows(field: Field[Any]) -> None:
    shape = shape_of(field)
    validator = jsonschema_rs.Draft202012Validator(shape, validate_formats=True)
    outcomes = set()
    for value in _values(field):
        # An argument is a text. A string schema describes the text itself, any other schema the value it stands for.
        text = value if isinstance(value, str | dict | list) else orjson.dumps(value).decode()
        if isinstance(text, str) == (shape["type"] not in ("object", "array")):
            meant = text if shape["type"] == "string" else value
            codes = _refusals(field, text)
            assert validator.is_valid(meant) is not bool(codes), (text, codes)
            outcomes.add(bool(codes))
    assert outcomes == {True, False}


def test_every_field_type_of_requests_has_a_schema_describer() -> None:
    used = {type(field) for kind in _schemas() for field in kind().fields.values()} | {AdapterScales}
    assert used == set(DESCRIBERS)
