"""References inside JSON schemas: where they lead, and which lead nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.constraints.schemas.enforced import Form, enforce_schema
from mistral_api.constraints.schemas.errors import SchemaRefused

INTEGER = {"type": "integer"}
_TWO = "leads to more than one schema"


def _two(**name: str) -> dict[str, Any]:
    return {"a": INTEGER | name, "b": {"type": "string"} | name}


@pytest.mark.parametrize(
    "schema",
    [
        {"$dynamicRef": "#n", "$defs": {"x": INTEGER | {"$dynamicAnchor": "n"}}},
        {"$dynamicRef": "#/$defs/n", "$defs": {"n": INTEGER}},
        {"$recursiveRef": "#/$defs/n", "$defs": {"n": INTEGER}},
    ],
)
def test_other_references_are_followed_and_written_as_what_they_lead_to(schema: dict[str, Any]) -> None:
    assert enforce_schema(schema, Form.ANSWER).schema == INTEGER


@pytest.mark.parametrize(
    ("schema", "path", "reason"),
    [
        ({"$dynamicRef": "#n", "$dynamicAnchor": "n"}, "", "it refers to itself without an end"),
        ({"$dynamicRef": "#n"}, ".$dynamicRef", "leads to no schema"),
        ({"$dynamicRef": "http://[#x"}, ".$dynamicRef", "leads to no schema"),
        ({"$dynamicRef": "#n", "$defs": _two(**{"$dynamicAnchor": "n"})}, ".$dynamicRef", _TWO),
        ({"$ref": "n", "$defs": _two(**{"$id": "n"})}, ".$ref", _TWO),
        ({"$ref": "n#/type", "$defs": _two(**{"$id": "n"})}, ".$ref", _TWO),
        ({"$id": "http://h/s", "$ref": "http://h/s#n", "$defs": _two(**{"$anchor": "n"})}, ".$ref", _TWO),
        (
            {"type": "array", "prefixItems": [INTEGER], "items": {"$ref": "#/prefixItems/00"}},
            ".items.$ref",
            "no schema",
        ),
        (
            {"type": "array", "prefixItems": [INTEGER], "items": {"$ref": "#/prefixItems/\u0660"}},
            ".items.$ref",
            "no schema",
        ),
    ],
)
def test_reference_that_leads_to_no_one_schema_is_refused(schema: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(SchemaRefused) as refused:
        enforce_schema(schema, Form.ANSWER)
    assert refused.value.path.replace("'", "") == path
    assert reason in refused.value.reason
    assert enforce_schema(schema, Form.TOOL).schema is not None


def test_bounds_between_which_only_longer_numbers_are_do_not_exclude_all() -> None:
    with pytest.raises(SchemaRefused, match="more decimals than are enforced"):
        enforce_schema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-9}, Form.ANSWER)
