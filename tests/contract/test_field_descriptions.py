"""What the description says of every field of a request is what the field's own check does."""

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
from tests.support.schema_values import beside, value_of

VALUES = 150
# What no schema can say: that no value satisfies a JSON schema.
_BEYOND_SCHEMAS = {"invalid_json_schema"}


def _schemas() -> list[type[Schema]]:
    found = [kind for each in OPERATIONS.values() for kind in (each.request, each.query) if kind is not None]
    return [*dict.fromkeys(found), SlotFileRequest]


def _fields(*, queries: bool) -> Iterator[Any]:
    """Every field that is described differently, once, under the first name it has."""
    seen = set()
    for kind in _schemas():
        for name, field in kind().fields.items():
            described = orjson.dumps([type(field).__qualname__, shape_of(field)])
            if issubclass(kind, Query) is queries and described not in seen:
                seen.add(described)
                yield pytest.param(field, id=f"{kind.__name__}.{name}")


def _refusals(field: Field[Any], value: Any) -> set[str]:
    """The codes with which a field refuses a value; none where it lets it through."""
    try:
        field.deserialize(value)
    except ValidationError as error:
        issues: list[Any] = list(error.messages)
        return {issue.code for issue in issues}
    return set()


def _values(field: Field[Any]) -> Iterator[Any]:
    """Values that the field allows and some beside them; null is left out, for it counts as absent."""
    chance, shape = random.Random(VALUES), shape_of(field)
    for _ in range(VALUES):
        value = value_of(shape, chance)
        for each in (value, beside(value, chance), beside(beside(value, chance), chance)):
            if each is not None:
                yield each


@pytest.mark.parametrize("field", [*_fields(queries=False), pytest.param(AdapterScales(), id="adapters")])
def test_a_body_field_lets_through_what_it_is_said_to_allow_and_nothing_else(field: Field[Any]) -> None:
    validator = jsonschema_rs.Draft202012Validator(shape_of(field))
    allowed = refused = 0
    for value in _values(field):
        codes = _refusals(field, value)
        assert validator.is_valid(value) is not bool(codes) or codes & _BEYOND_SCHEMAS, (value, codes)
        allowed, refused = allowed + (not codes), refused + bool(codes)
    assert allowed > VALUES / 10 or isinstance(field, ServerOwnedField)
    assert refused > VALUES / 10


@pytest.mark.parametrize("field", list(_fields(queries=True)))
def test_an_argument_of_a_query_takes_the_text_of_what_it_is_said_to_allow(field: Field[Any]) -> None:
    shape = shape_of(field)
    validator = jsonschema_rs.Draft202012Validator(shape, validate_formats=True)
    outcomes = set()
    for value in _values(field):
        # An argument is a text; where the schema says string, that is what the schema sees, else what it stands for.
        text = value if isinstance(value, str | dict | list) else orjson.dumps(value).decode()
        if isinstance(text, str) == (shape["type"] not in ("object", "array")):
            meant = text if shape["type"] == "string" else value
            codes = _refusals(field, text)
            assert validator.is_valid(meant) is not bool(codes), (text, codes)
            outcomes.add(bool(codes))
    assert outcomes == {True, False}


def test_every_kind_of_field_that_requests_have_is_described_and_no_other() -> None:
    used = {type(field) for kind in _schemas() for field in kind().fields.values()} | {AdapterScales}
    assert used == set(DESCRIBERS)
