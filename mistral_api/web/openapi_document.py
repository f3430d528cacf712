"""The document, put together from the routes.

What the API says of itself: an OpenAPI 3.1 document made from its routes and the schemas its views load with.

``shapes`` builds JSON schemas, ``fields`` says what each field of the request schemas allows, ``answers`` what the
answers hold, ``operations`` ties both to the routes, and ``document`` puts the whole together.

Request bodies and query arguments, from the marshmallow schemas that the views load with.

What answers hold: the fields that are always there, and those that may be null or missing.

The whole OpenAPI document, put together from the routes of an application.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from marshmallow import Schema
from werkzeug.routing import Rule

from mistral_api.version import VERSION
from mistral_api.web.operations import EVENTS, JSON, OPERATIONS, TAGS, Operation
from mistral_api.wire.generation_bodies import ANTHROPIC_COMPONENTS, GENERATION_COMPONENTS, LLAMA_CPP_COMPONENTS
from mistral_api.wire.json_schema import COUNT, FILLED, TEXT, Shape, either, nullable, only, record, ref
from mistral_api.wire.monitoring_bodies import MONITORING_COMPONENTS
from mistral_api.wire.queries import Query
from mistral_api.wire.request_schema import Field, RequestSchema
from mistral_api.wire.stored_bodies import CONVERSATION_COMPONENTS, RESPONSE_COMPONENTS


class RequestSchemas(MarshmallowPlugin):
    """apispec's reader of marshmallow schemas, which asks ``fields`` what each field allows."""

    def init_spec(self, spec: Any) -> None:
        """Begin a document."""
        super().init_spec(spec)
        self.converter: Any  # apispec has none before this
        self.converter.add_attribute_function(_described)

    def body(self, kind: type[RequestSchema]) -> Shape:
        """The JSON schema of a body."""
        shape: Shape = self.converter.schema2jsonschema(kind())
        rules = dict(kind.RULES)
        shape["properties"] = dict(shape["properties"]) | rules.pop("properties", {})
        described = {"description": (kind.__doc__ or "").partition("\n")[0].replace("``", "`")}
        example = {} if kind.EXAMPLE is None else {"example": kind.EXAMPLE}
        return {"type": "object"} | shape | rules | described | example

    def arguments(self, kind: type[Schema]) -> list[dict[str, Any]]:
        """The arguments of a query; objects come as ``name[key]=value``."""
        found: list[dict[str, Any]] = self.converter.schema2parameters(kind(), location="query")
        for argument in found:
            if argument["schema"].get("type") == "object":
                argument |= {"style": "deepObject", "explode": True}
        return found


def _described(_converter: Any, field: Field, **_options: Any) -> Shape:
    """A field of a query is text; in a body null counts as absent."""
    shape = field.shape.json_schema
    return shape if field.required or isinstance(field.parent, Query) else nullable(shape)


COMPONENTS: dict[str, Shape] = (
    GENERATION_COMPONENTS
    | CONVERSATION_COMPONENTS
    | RESPONSE_COMPONENTS
    | ANTHROPIC_COMPONENTS
    | LLAMA_CPP_COMPONENTS
    | MONITORING_COMPONENTS
)

__all__ = ["COMPONENTS"]


_ABOUT = (
    "OpenAI's and Anthropic's requests, answered by a local model and recorded in PostgreSQL. Every answer carries "
    "`X-Request-Id`: the one of the request (1-128 printable ASCII characters), or one of ours. Fields that are not "
    "named here pass on to the model server. Some fields exclude or need each other: then the answer is a 400 that "
    "names one."
)
_ARGUMENT = re.compile(r"<(?:(?P<kind>[^:<>]+):)?(?P<name>[^<>]+)>")
_HEADERS: dict[str, Shape] = {
    "X-Request-Id": {"description": "The id of the request.", "required": True, "schema": FILLED},
    "X-Session-Id": {"description": "The conversation that the exchange is on.", "required": True, "schema": FILLED},
    "X-Error-Source": {"description": "Who failed.", "required": True, "schema": {"enum": ["api", "model-server"]}},
    "Retry-After": {"description": "Seconds after which it is worth trying again.", "schema": COUNT},
}
_MEANINGS = {"4XX": "The model server refused the request.", "504": "The model server kept silent for too long."}


def described_routes(app: Flask) -> Iterator[tuple[Rule, str]]:
    """Every rule of the application with each method that it answers; HEAD and OPTIONS go without saying."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method.lower()


def describe(app: Flask) -> dict[str, Any]:
    """The document. Raises KeyError for a route that is in no table, TypeError for a field that nobody described."""
    reader = RequestSchemas()
    spec = APISpec(
        "Mistral Local API",
        VERSION,
        "3.1.0",
        plugins=[reader],
        info={"description": _ABOUT},
        servers=[{"url": "/"}],
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        # No key exists yet; clients of OpenAI send one all the same.
        security=[{}, {"bearer": []}],
    )
    _add_components(spec)
    for rule, method in described_routes(app):
        operation = OPERATIONS[rule.endpoint]
        said = {"operationId": _id(rule.endpoint), "summary": _summary(app, rule), "tags": [_family(rule)]}
        said |= _asked(spec, reader, rule, operation) | {"responses": _answered(rule, operation)}
        spec.path(_ARGUMENT.sub(r"{\g<name>}", rule.rule), operations={method: said})
    document: dict[str, Any] = spec.to_dict()
    return document


def _add_components(spec: APISpec) -> None:
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    for name, shape in COMPONENTS.items():
        spec.components.schema(name, shape)
    for name, header in _HEADERS.items():
        spec.components.header(name, header)


def _id(endpoint: str) -> str:
    """The name of an operation, such that generators of clients can make it one of a function."""
    return endpoint.replace(".", "_")


def _family(rule: Rule) -> str:
    return str(rule.endpoint).partition(".")[0]


def _summary(app: Flask, rule: Rule) -> str:
    said: str = app.view_functions[rule.endpoint].__doc__ or ""
    return said.partition("\n")[0].replace("``", "`").rstrip(".")


def _asked(spec: APISpec, reader: RequestSchemas, rule: Rule, operation: Operation) -> dict[str, Any]:
    arguments = [_path_argument(found) for found in _ARGUMENT.finditer(rule.rule)]
    if operation.query is not None:
        arguments += reader.arguments(operation.query)
    for needed, shapes in ((True, operation.needed), (False, operation.arguments)):
        arguments += [{"name": name, "in": "query", "required": needed, "schema": shapes[name]} for name in shapes]
    said: dict[str, Any] = {"parameters": arguments} if arguments else {}
    if operation.has_body:
        content = {JSON: {"schema": _body(spec, reader, operation)}}
        said["requestBody"] = {"required": operation.body_required, "content": content}
    return said if operation.guarded else said | {"security": []}


def _path_argument(found: re.Match[str]) -> dict[str, Any]:
    shape = COUNT if found["kind"] == "int" else FILLED
    return {"name": found["name"], "in": "path", "required": True, "schema": shape}


def _body(spec: APISpec, reader: RequestSchemas, operation: Operation) -> Shape:
    if operation.request is None:
        return operation.body or {}
    name = operation.request.__name__
    if name not in spec.components.schemas:
        spec.components.schema(name, reader.body(operation.request))
    return ref(name)


def _answered(rule: Rule, operation: Operation) -> dict[str, Any]:
    statuses = operation.statuses | {"500"}
    statuses |= {"401"} if operation.guarded else set()
    statuses |= {"400", "413"} if operation.has_body else set()
    statuses |= {"400"} if operation.query or operation.needed else set()
    statuses |= {"404"} if rule.arguments else set()
    answers = {status: _error(status, operation) for status in statuses - set(operation.also)}
    for status, component in operation.also.items():
        answers[status] = _answer("Not now", {JSON: {"schema": ref(component)}})
    answers["200"] = _answer("Done", _content(operation), *(["X-Session-Id"] if operation.of_session else []))
    name, others = operation.names
    if others:
        links = {
            _id(other): {"operationId": _id(other), "parameters": {name: "$response.body#/id"}} for other in others
        }
        answers["200"]["links"] = links
    return dict(sorted(answers.items()))


def _content(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {media: {"schema": TEXT} for media in operation.media}
    if operation.answer is not None:
        content[JSON] = {"schema": ref(operation.answer)}
    if operation.event is not None:
        content[EVENTS] = {"schema": _event(operation)}
    return content


def _event(operation: Operation) -> Shape:
    """One server-sent event: OpenAPI before 3.2 has no word for the stream that they make."""
    sent = either(ref(operation.event or ""), ref(operation.error))
    decoded = TEXT | {"contentMediaType": JSON, "contentSchema": sent}
    about = {"description": "One event of the stream; after a failure there is no `[DONE]`."}
    return about | record({"data": either(only("[DONE]"), decoded)}, {"event": TEXT})


def _error(status: str, operation: Operation) -> dict[str, Any]:
    meaning = _MEANINGS.get(status) or HTTPStatus(int(status)).phrase
    headers = ["X-Error-Source", *(["Retry-After"] if status == "503" else [])]
    return _answer(meaning, {JSON: {"schema": ref(operation.error)}}, *headers)


def _answer(meaning: str, content: dict[str, Any], *headers: str) -> dict[str, Any]:
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *headers)}
    return {"description": meaning, "headers": named, "content": content}
