"""Request schemas, marshmallow schemas whose fields hold shapes, and how a decoded body is loaded with one."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Mapping
from typing import Any, ClassVar, Generic

from marshmallow import Schema, ValidationError, fields, missing

from mistral_api.errors import InvalidRequest
from mistral_api.payload_types import PayloadT
from mistral_api.wire.field_errors import Issue, quote_value
from mistral_api.wire.shapes import JsonSchema, Shape, Text, any_of

_MISSING = Issue("missing_required_parameter", "Missing required parameter: '{param}'.")
_UNKNOWN = Issue("unknown_parameter", "Unknown parameter: '{param}'.")


def blank_is_absent(shape: Shape) -> Shape:
    """Return a shape of strings that also takes the empty one, which counts as absent.

    Clients send what was left empty in a form.
    """

    def check_unless_blank(value: object) -> None:
        if value != "":
            check(value)

    check, json_schema = shape.check, any_of([*shape.alternatives, {"const": ""}])
    return Shape(check_unless_blank, json_schema, *shape.types, convert=lambda text: text or missing)


# The name of a model. Without one, the model that is served answers.
MODEL = blank_is_absent(Text(1, 256))


# So many sets of fields are remembered of a schema.
MOST_NARROWED = 256


class Field(fields.Field[Any]):
    """A field of a request, with the shape of its values. What is converted to marshmallow's ``missing`` is dropped."""

    def __init__(self, shape: Shape, *, required: bool = False, load_default: object = missing) -> None:
        super().__init__(required=required, load_default=load_default)
        self.shape = shape
        self._check, self._convert = shape.check, shape.convert

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        self._check(value)
        return value if self._convert is None else self._convert(value)


class RequestSchema(Schema, Generic[PayloadT]):
    """The base of request schemas. ``PayloadT`` is the type of what a request is loaded as.

    For the OpenAPI document, ``EXAMPLE`` is a body that a reader can try first, and ``RULES`` are keywords of the JSON
    schema of the whole body: what is demanded beyond single fields, as far as JSON schemas say it simply.
    """

    EXAMPLE: ClassVar[Mapping[str, object] | None] = None
    RULES: ClassVar[JsonSchema] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The schemas for some of the fields, by their names.
        self._narrowed: dict[frozenset[str], RequestSchema[PayloadT]] = {}

    def for_fields(self, names: Iterable[str]) -> RequestSchema[PayloadT]:
        """Return the same schema for bodies with no other fields than these.

        marshmallow looks at every field of a schema, whether or not it is there: with the 80 of a chat that takes
        longer than all other checks. A field that is demanded, or has a default, stays. No hook may add a field.
        Programs send the same few sets of fields over and over.
        """
        wanted = frozenset(name for name in names if name in self.load_fields)
        narrow = self._narrowed.get(wanted)
        if narrow is None:
            narrow = self._narrow(wanted)
            if len(self._narrowed) >= MOST_NARROWED:
                self._narrowed.clear()
            self._narrowed[wanted] = narrow
        return narrow

    def _narrow(self, names: Container[str]) -> RequestSchema[PayloadT]:
        narrow = copy.copy(self)
        narrow.load_fields = {
            name: each
            for name, each in self.load_fields.items()
            if name in names or each.required or each.load_default is not missing
        }
        return narrow


def load(schema: RequestSchema[PayloadT], payload: object) -> PayloadT:
    """Return the fields of a decoded body, or of the arguments of a query. Nulls of known fields count as absent.

    Raises InvalidRequest for the first field that is wrong, in the order in which the schema declares them. Rules
    between fields are looked at only when every single field is right.
    """
    if not isinstance(payload, dict):
        raise InvalidRequest("Invalid request: expected a JSON object as the body.", code="invalid_type")
    present = {name: value for name, value in payload.items() if value is not None or name not in schema.fields}
    try:
        loaded: PayloadT = schema.for_fields(present).load(present)
    except ValidationError as error:
        raise _refusal(schema, error) from error
    return loaded


def _refusal(schema: Schema, error: ValidationError) -> InvalidRequest:
    """Return the error for the first issue."""
    issues = error.messages_dict
    name = next((declared for declared in schema.fields if declared in issues), next(iter(issues)))
    issue = issues[name][0]
    if not isinstance(issue, Issue):  # marshmallow's own words: the field is unknown, or required and missing
        issue = _UNKNOWN if name not in schema.fields else _MISSING
    param = (name if name in schema.fields else quote_value(name)) + issue.path
    return InvalidRequest(issue.text.replace("{param}", param), code=issue.code, param=param)
