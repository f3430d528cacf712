"""Request schemas, marshmallow schemas whose fields hold shapes, and how a decoded body is loaded with one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, cast

from marshmallow import EXCLUDE, INCLUDE, Schema, ValidationError, fields, missing
from marshmallow.decorators import POST_LOAD, PRE_LOAD, VALIDATES, VALIDATES_SCHEMA

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

    @property
    def is_plain(self) -> bool:
        """Whether marshmallow does no more with a value than :meth:`loaded`."""
        return not (self.validators or self.attribute or self.data_key or self.allow_none)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return self.loaded(value)

    def loaded(self, value: Any) -> Any:
        """Return a value as it is loaded. Raises ValidationError."""
        self._check(value)
        return value if self._convert is None else self._convert(value)


@dataclass(frozen=True, slots=True)
class _PlainLoading:
    """How the fields of a schema are loaded, and what is looked at when every single one is right.

    It does what marshmallow does with a body that is right, in a quarter of the time.
    """

    fields: tuple[tuple[str, Field], ...]
    rules: tuple[Callable[..., None], ...]
    unknown: str

    @classmethod
    def of(cls, schema: Schema) -> _PlainLoading | None:
        """Return how a schema is loaded; None where it has more than fields with shapes, and rules between them."""
        hooks = schema._hooks  # there is no other way to know what a schema calls
        rules = hooks[VALIDATES_SCHEMA]
        if hooks[PRE_LOAD] or hooks[POST_LOAD] or hooks[VALIDATES] or any(rule[2]["pass_original"] for rule in rules):
            return None
        plain = [(name, each) for name, each in schema.load_fields.items() if isinstance(each, Field) and each.is_plain]
        if len(plain) != len(schema.load_fields):
            return None
        return cls(tuple(plain), tuple(getattr(schema, name) for name, _, _ in rules), schema.unknown)

    def load(self, body: Mapping[str, object]) -> dict[str, object] | None:
        """Return a body as it is loaded, None where it lacks a field or has one too many.

        Raises ValidationError for a field, or a rule between fields, that is broken.
        """
        loaded: dict[str, object] = {}
        known = 0
        for name, field in self.fields:
            if name in body:
                known += 1
                value = field.loaded(body[name])
            elif field.required:
                return None
            else:
                default = field.load_default
                value = default() if callable(default) else default
            if value is not missing:
                loaded[name] = value
        if known != len(body) and not self._take_others(body, loaded):
            return None
        for rule in self.rules:
            rule(loaded, partial=None, many=False, unknown=self.unknown)
        return loaded

    def _take_others(self, body: Mapping[str, object], loaded: dict[str, object]) -> bool:
        """Take over the fields that nobody declared; return False where there must be none."""
        if self.unknown == INCLUDE:
            names = {name for name, _ in self.fields}
            loaded.update((name, value) for name, value in body.items() if name not in names)
        return self.unknown in (INCLUDE, EXCLUDE)


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
        # How bodies are loaded that are right; known of the schemas for some fields.
        self.plain_loading: _PlainLoading | None = None

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
        narrow.plain_loading = _PlainLoading.of(narrow)
        return narrow


def load(schema: RequestSchema[PayloadT], payload: object) -> PayloadT:
    """Return the fields of a decoded body, or of the arguments of a query. Nulls of known fields count as absent.

    Raises InvalidRequest for the first field that is wrong, in the order in which the schema declares them. Rules
    between fields are looked at only when every single field is right.
    """
    if not isinstance(payload, dict):
        raise InvalidRequest("Invalid request: expected a JSON object as the body.", code="invalid_type")
    present = {name: value for name, value in payload.items() if value is not None or name not in schema.fields}
    narrow = schema.for_fields(present)
    right = _load_right(narrow.plain_loading, present)
    if right is not None:
        return cast("PayloadT", right)
    try:
        loaded: PayloadT = narrow.load(present)
    except ValidationError as error:
        raise _refusal(schema, error) from error
    return loaded


def _load_right(loading: _PlainLoading | None, present: Mapping[str, object]) -> dict[str, object] | None:
    """Return a body that is right as it is loaded; None where marshmallow shall load it, and say what is wrong."""
    try:
        return None if loading is None else loading.load(present)
    except ValidationError:
        return None


def _refusal(schema: Schema, error: ValidationError) -> InvalidRequest:
    """Return the error for the first issue."""
    issues = error.messages_dict
    name = next((declared for declared in schema.fields if declared in issues), next(iter(issues)))
    issue = issues[name][0]
    if not isinstance(issue, Issue):  # marshmallow's own words: the field is unknown, or required and missing
        issue = _UNKNOWN if name not in schema.fields else _MISSING
    param = (name if name in schema.fields else quote_value(name)) + issue.path
    return InvalidRequest(issue.text.replace("{param}", param), code=issue.code, param=param)
