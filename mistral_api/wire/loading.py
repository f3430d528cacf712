"""From a decoded body, or the arguments of a query, to a valid dictionary, or to one clear refusal."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError

from mistral_api.errors import InvalidRequest
from mistral_api.wire.constraints import nested
from mistral_api.wire.field_errors import Issue, quote_value

# orjson reads 1024 levels and writes 254; the model server and our records wrap what they get.
DEEPEST = 100


def load(schema: Schema, payload: object) -> dict[str, Any]:
    """The valid fields as the client sent them; nulls of known fields count as absent.

    Raises InvalidRequest for the first field, in the order the schema declares them, that is wrong.
    """
    if not isinstance(payload, dict):
        raise InvalidRequest("Invalid request: expected a JSON object as the body.", code="invalid_type")
    for name, value in payload.items():
        _check_depth(name, value)
    present = {name: value for name, value in payload.items() if value is not None or name not in schema.fields}
    try:
        loaded: dict[str, Any] = schema.load(present)
    except ValidationError as error:
        raise _refusal(schema, error) from error
    return loaded


def _check_depth(name: str, value: object) -> None:
    if any(depth >= DEEPEST for depth, _ in enumerate(nested(value))):
        text = f"Invalid '{quote_value(name)}': nested too deeply. Expected at most {DEEPEST} levels."
        raise InvalidRequest(text, code="invalid_value", param=quote_value(name))


def _refusal(schema: Schema, error: ValidationError) -> InvalidRequest:
    """The first problem, as an error of ours."""
    problems: dict[str, Any] = error.messages_dict
    name = next((declared for declared in schema.fields if declared in problems), next(iter(problems)))
    issue = problems[name][0]
    if not isinstance(issue, Issue):  # marshmallow's own words: the field is required and missing
        issue = Issue("missing_required_parameter", "Missing required parameter: '{param}'.")
    param = name + issue.path
    return InvalidRequest(issue.text.replace("{param}", param), code=issue.code, param=param)
