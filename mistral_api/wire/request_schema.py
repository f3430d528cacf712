"""Request schemas: marshmallow schemas whose fields hold shapes, and how a decoded body is loaded with one."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, missing

from mistral_api.errors import InvalidRequest
from mistral_api.wire.constraints import levels
from mistral_api.wire.field_errors import Issue, quote_value
from mistral_api.wire.shapes import JsonSchema, Shape

Payload = dict[str, Any]
# orjson reads 1024 levels and writes 254; the model server and our records wrap what they get.
DEEPEST = 100


class Field(fields.Field[Any]):
    """A field of a request: it refuses what does not fit its shape, and loads the value as the client sent it.

    Only where the shape has a conversion is the value loaded changed.
    """

    def __init__(self, shape: Shape, *, required: bool = False, load_default: Any = missing) -> None:
        super().__init__(required=required, load_default=load_default)
        self.shape = shape

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        self.shape.check(value)
        return value if self.shape.convert is None else self.shape.convert(value)


class RequestSchema(Schema):
    """The base of request schemas. Beside its fields a schema may give the OpenAPI document two things.

    ``EXAMPLE`` is a body that a reader can try first. ``RULES`` are keywords of the JSON schema of the whole body: what
    the schema demands beyond single fields, as far as JSON schemas say it simply.
    """

    EXAMPLE: ClassVar[Payload | None] = None
    RULES: ClassVar[JsonSchema] = {}


def load(schema: Schema, payload: object) -> Payload:
    """The valid fields as the client sent them; nulls of known fields count as absent.

    Raises InvalidRequest for the first field, in the order the schema declares them, that is wrong.
    """
    if not isinstance(payload, dict):
        raise InvalidRequest("Invalid request: expected a JSON object as the body.", code="invalid_type")
    for name, value in payload.items():
        _check_depth(name, value)
    present = {name: value for name, value in payload.items() if value is not None or name not in schema.fields}
    try:
        loaded: Payload = schema.load(present)
    except ValidationError as error:
        raise _refusal(schema, error) from error
    return loaded


def _check_depth(name: str, value: object) -> None:
    if any(depth >= DEEPEST for depth, _ in enumerate(levels(value))):
        text = f"Invalid '{quote_value(name)}': nested too deeply. Expected at most {DEEPEST} levels."
        raise InvalidRequest(text, code="invalid_value", param=quote_value(name))


def _refusal(schema: Schema, error: ValidationError) -> InvalidRequest:
    """The first problem, as an error of ours."""
    problems = error.messages_dict
    name = next((declared for declared in schema.fields if declared in problems), next(iter(problems)))
    issue = problems[name][0]
    if not isinstance(issue, Issue):  # marshmallow's own words: the field is required and missing
        issue = Issue("missing_required_parameter", "Missing required parameter: '{param}'.")
    param = name + issue.path
    return InvalidRequest(issue.text.replace("{param}", param), code=issue.code, param=param)
