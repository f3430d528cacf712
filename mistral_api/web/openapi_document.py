"""The OpenAPI 3.1 document of the API, put together from three sources.

Paths, methods and summaries are those of the application's routes, ``operations`` says what each route takes and
responds with, and the shapes of requests and response bodies are declared in :mod:`mistral_api.wire`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from werkzeug.routing import Rule

from mistral_api.payload_types import JsonObject
from mistral_api.version import VERSION
from mistral_api.web.operations import OPERATIONS, TAGS, Operation
from mistral_api.wire import anthropic, generation_bodies, keys, llama_cpp, monitoring_bodies, ollama, stored_bodies
from mistral_api.wire.container_shapes import Object, optional, required
from mistral_api.wire.paths import ALIASES
from mistral_api.wire.queries import Query
from mistral_api.wire.request_schema import Field, RequestSchema
from mistral_api.wire.shapes import (
    COUNT,
    AnyOf,
    Component,
    Constant,
    JsonSchema,
    Shape,
    Text,
    nullable_schema,
)

_JSON, _EVENTS, _LINES = "application/json", "text/event-stream", "application/x-ndjson"
_DESCRIPTION = (
    "OpenAI's and Anthropic's requests, answered by a local model and recorded in PostgreSQL. Every answer carries "
    "`X-Request-Id`: the one of the request (1-128 printable ASCII characters), or one of ours. Fields that are not "
    "named here pass on to the model server. Some fields exclude or need each other: then the answer is a 400 that "
    "names one. A path may end with a slash. The same is answered under: "
    + ", ".join(f"`{alias}` ({path})" for alias, path in ALIASES.items())
    + "."
)
_BODY_MODULES = (generation_bodies, stored_bodies, anthropic, ollama, llama_cpp, monitoring_bodies, keys)
_HEADERS: dict[str, JsonSchema] = {
    "X-Request-Id": {"description": "The id of the request.", "required": True, "schema": Text(1).json_schema},
    "X-Session-Id": {
        "description": "The conversation that the exchange is on.",
        "required": True,
        "schema": Text(1).json_schema,
    },
    "X-Cache": {
        "description": "Whether the answer was in the cache; absent where it was not looked for.",
        "schema": {"enum": ["hit", "miss"]},
    },
    "X-Ignored-Tools": {
        "description": "The types of the tools that were left out, since only their maker's servers can run them.",
        "schema": Text(1).json_schema,
    },
    "X-Queue-Position": {
        "description": "The position in the queue for a slot when the request began to wait; absent where it did not.",
        "schema": COUNT.json_schema,
    },
    "X-Error-Source": {"description": "Who failed.", "required": True, "schema": {"enum": ["api", "model-server"]}},
    "Retry-After": {"description": "Seconds after which it is worth trying again.", "schema": COUNT.json_schema},
}
_STATUS_MEANINGS = {
    "4XX": "The model server refused the request.",
    "504": "The model server kept silent for too long.",
}
_PATH_ARGUMENT = re.compile(r"<(?:(?P<kind>[^:<>]+):)?(?P<name>[^<>]+)>")


class RequestSchemas(MarshmallowPlugin):
    """apispec's reader of marshmallow schemas, which takes the JSON schema of each field from its shape."""

    def init_spec(self, spec: APISpec) -> None:
        """Begin a document."""
        super().init_spec(spec)
        self.converter: Any  # apispec has none before this
        self.converter.add_attribute_function(_field_schema)

    def body(self, schema: type[RequestSchema[Any]]) -> JsonSchema:
        """Return the JSON schema of a body."""
        json_schema: JsonSchema = self.converter.schema2jsonschema(schema())
        rules = dict(schema.RULES)
        json_schema["properties"] = dict(json_schema["properties"]) | rules.pop("properties", {})
        description = {"description": _first_line(schema.__doc__)}
        example = {} if schema.EXAMPLE is None else {"example": schema.EXAMPLE}
        return {"type": "object"} | json_schema | rules | description | example

    def arguments(self, schema: type[RequestSchema[Any]]) -> list[JsonSchema]:
        """Return the arguments of a query; objects come as ``name[key]=value``."""
        arguments: list[JsonSchema] = self.converter.schema2parameters(schema(), location="query")
        for argument in arguments:
            if argument["schema"].get("type") == "object":
                argument |= {"style": "deepObject", "explode": True}
        return arguments


def _field_schema(_converter: object, field: Field, **_options: object) -> JsonSchema:
    """Return the JSON schema of a field: in a body null counts as absent, in a query there is no null."""
    json_schema = field.shape.json_schema
    return json_schema if field.required or isinstance(field.parent, Query) else nullable_schema(json_schema)


def described_routes(app: Flask) -> Iterator[tuple[Rule, str]]:
    """Yield every rule of the application with each method that it answers, but for HEAD and OPTIONS."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method.lower()


def build_document(app: Flask) -> JsonObject:
    """Return the document. Raises KeyError for a route that ``operations`` does not have."""
    reader = RequestSchemas()
    spec = APISpec(
        "Mistral Local API",
        VERSION,
        "3.1.0",
        plugins=[reader],
        info={"description": _DESCRIPTION},
        servers=[{"url": "/"}],
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        # No key exists yet; clients of OpenAI send one all the same.
        security=[{}, {"bearer": []}],
    )
    _add_components(spec)
    for rule, method in described_routes(app):
        operation = OPERATIONS[rule.endpoint]
        described = {
            "operationId": _operation_id(rule.endpoint),
            "summary": _first_line(app.view_functions[rule.endpoint].__doc__).rstrip("."),
            "tags": [str(rule.endpoint).partition(".")[0]],
            **_request(spec, reader, rule, operation),
            "responses": _responses(rule, operation),
        }
        spec.path(_PATH_ARGUMENT.sub(r"{\g<name>}", rule.rule), operations={method: described})
    document: JsonObject = spec.to_dict()
    return document


def _add_components(spec: APISpec) -> None:
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    for module in _BODY_MODULES:
        for value in vars(module).values():
            if isinstance(value, Component):
                spec.components.schema(value.name, value.definition)
    for name, header in _HEADERS.items():
        spec.components.header(name, header)


def _operation_id(endpoint: str) -> str:
    """Return the name of an operation, such that generators of clients can make it the name of a function."""
    return endpoint.replace(".", "_")


def _first_line(docstring: str | None) -> str:
    return (docstring or "").partition("\n")[0].replace("``", "`")


def _request(spec: APISpec, reader: RequestSchemas, rule: Rule, operation: Operation) -> JsonObject:
    arguments = [_path_argument(found) for found in _PATH_ARGUMENT.finditer(rule.rule)]
    if operation.query is not None:
        arguments += reader.arguments(operation.query)
    for needed, shapes in ((True, operation.required_arguments), (False, operation.optional_arguments)):
        arguments += [_query_argument(name, shape, needed) for name, shape in shapes.items()]
    described: JsonObject = {"parameters": arguments} if arguments else {}
    if operation.has_body:
        content = {_JSON: {"schema": _body(spec, reader, operation)}}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    return described | {"security": []} if operation.public else described


def _path_argument(found: re.Match[str]) -> JsonObject:
    shape = COUNT if found["kind"] == "int" else Text(1)
    return {"name": found["name"], "in": "path", "required": True, "schema": shape.json_schema}


def _query_argument(name: str, shape: Shape, needed: bool) -> JsonObject:
    return {"name": name, "in": "query", "required": needed, "schema": shape.json_schema}


def _body(spec: APISpec, reader: RequestSchemas, operation: Operation) -> JsonSchema:
    if operation.request is None:
        return {} if operation.body is None else operation.body.json_schema
    name = operation.request.__name__
    if name not in spec.components.schemas:
        spec.components.schema(name, reader.body(operation.request))
    return {"$ref": f"#/components/schemas/{name}"}


def _responses(rule: Rule, operation: Operation) -> JsonObject:
    statuses = operation.statuses | {"403", "421", "500"}
    statuses |= set() if operation.public else {"401", "429"}
    statuses |= {"400", "413", "415"} if operation.has_body else set()
    statuses |= {"400"} if operation.query or operation.required_arguments else set()
    statuses |= {"404"} if rule.arguments else set()
    responses = {status: _error(status, operation) for status in statuses - set(operation.other_responses)}
    for status, component in operation.other_responses.items():
        meaning = _STATUS_MEANINGS.get(status) or HTTPStatus(int(status)).phrase
        responses[status] = _response(meaning, {_JSON: {"schema": component.json_schema}})
    headers = ["X-Session-Id", "X-Cache", "X-Ignored-Tools", "X-Queue-Position"] if operation.of_session else []
    responses["200"] = _response("Done", _content(operation), *headers)
    if operation.of_session and not operation.always_in_session:
        described = _HEADERS["X-Session-Id"] | {"required": False}
        responses["200"]["headers"]["X-Session-Id"] = described
    argument, endpoints = operation.links
    if endpoints:
        responses["200"]["links"] = {
            _operation_id(endpoint): {
                "operationId": _operation_id(endpoint),
                "parameters": {argument: "$response.body#/id"},
            }
            for endpoint in endpoints
        }
    return dict(sorted(responses.items()))


def _content(operation: Operation) -> JsonObject:
    content: JsonObject = {media: {"schema": Text().json_schema} for media in operation.media}
    if operation.response is not None:
        content[_JSON] = {"schema": operation.response.json_schema}
    if operation.event is not None:
        content[_EVENTS] = {"schema": _event(operation.event, operation.error)}
    if operation.line is not None:
        content[_LINES] = {"schema": _lines(operation.line, operation.error)}
    return content


def _event(event: Component, error: Component) -> JsonSchema:
    """Describe one server-sent event: OpenAPI before 3.2 has no keyword for the stream that they make."""
    data = Text().with_keywords(contentMediaType=_JSON, contentSchema=AnyOf(event, error).json_schema)
    shape = Object(required(data=AnyOf(Constant("[DONE]"), data)), optional(event=Text()))
    return {"description": "One event of the stream; after a failure there is no `[DONE]`."} | shape.json_schema


def _lines(line: Component, error: Component) -> JsonSchema:
    """Describe a stream of lines: OpenAPI before 3.2 has no keyword for one."""
    described = AnyOf(line, error).json_schema
    text = Text().with_keywords(contentMediaType=_JSON, contentSchema=described)
    return {"description": "A JSON object a line; after an error there is no other."} | text.json_schema


def _error(status: str, operation: Operation) -> JsonObject:
    meaning = _STATUS_MEANINGS.get(status) or HTTPStatus(int(status)).phrase
    headers = ["X-Error-Source", *(["Retry-After"] if status in ("429", "503") else [])]
    return _response(meaning, {_JSON: {"schema": operation.error.json_schema}}, *headers)


def _response(description: str, content: JsonObject, *headers: str) -> JsonObject:
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *headers)}
    return {"description": description, "headers": named, "content": content}
