"""The JSON schemas of a request as the constraints that they become, or the refusal of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import ValidationError

from mistral_api.constraints.schemas.deadline import Deadline
from mistral_api.constraints.schemas.enforced import Form, enforce_schema
from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.constraints.schemas.remembered import Enforced
from mistral_api.errors import InvalidRequest
from mistral_api.grammars.request_budget import charged, seconds_left
from mistral_api.wire.constraint_cost import TOO_COSTLY, check_grammar_cost
from mistral_api.wire.constraint_places import Constraint, PlacedSchema, grammar_constraint, schema_constraint
from mistral_api.wire.constraints import check_schema

INVALID = "invalid_json_schema"
# What only requests without a chat have.
_PROMPTS = ("prompt", "input_prefix")


def enforced_constraints(
    schemas: Sequence[PlacedSchema], body: dict[str, Any], *, forced: bool = False
) -> list[Constraint]:
    """Return what the model server is told to enforce for the schemas of a valid request.

    ``forced``: its choice among the tools demands a call. Raises InvalidRequest for a schema that cannot be enforced,
    with the path of the part at fault.
    """
    answer = Form.TEXT if any(name in body for name in _PROMPTS) else Form.ANSWER
    strict = Form.ANSWER if forced else Form.STRICT_TOOL
    deadline = Deadline(seconds_left())
    with charged():
        return [
            _constraint(each, answer if not each.of_tool else strict if each.strict else Form.TOOL, deadline)
            for each in schemas
        ]


def _constraint(placed: PlacedSchema, form: Form, deadline: Deadline) -> Constraint:
    """Return the constraint of a schema. ``deadline``: for all constraints of the request."""
    if deadline.is_over:
        text = f"'{placed.path}' is refused: the schemas of the request take too long to compile together."
        raise InvalidRequest(text, code=TOO_COSTLY, param=placed.path)
    try:
        enforced = enforce_schema(placed.schema, form)
        if form is Form.TEXT:
            # Its grammar costs what the schema costs that it could be, of which is known what is harmless.
            enforced = enforce_schema(placed.schema, Form.ANSWER)
    except SchemaRefused as refused:
        raise refusal(placed.path, refused) from refused
    return _checked(placed, enforced)


def refusal(path: str, refused: SchemaRefused) -> InvalidRequest:
    """Return the error for a schema at a path of a request."""
    where = path + refused.path
    return InvalidRequest(f"Invalid schema for '{where}': {refused.reason}.", code=INVALID, param=where)


def _checked(placed: PlacedSchema, enforced: Enforced) -> Constraint:
    """Return a constraint, once what has been made of a schema has passed the checks that it has passed itself."""
    try:
        if enforced.grammar is not None:
            check_grammar_cost(enforced.grammar)
            return grammar_constraint(placed.path, enforced.grammar)
        if enforced.schema is not placed.schema and enforced.schema is not None:
            check_schema(enforced.schema)
    except ValidationError as error:
        text = f"'{placed.path}' would hold up the model server, as what llama.cpp enforces it by."
        raise InvalidRequest(text, code=TOO_COSTLY, param=placed.path) from error
    return schema_constraint(placed.path, enforced.schema or {})
