"""The OpenAPI document is valid and complete, and agrees with the examples in the docs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from mistral_api.web import BLUEPRINTS
from mistral_api.web.openapi_document import build_document, described_routes
from mistral_api.web.operations import OPERATIONS
from tests.support.processes import ROOT

DOCS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/api.md", "docs/ollama.md")}
_BASE = "http://127.0.0.1:9000"


def _application() -> Flask:
    app = Flask("mistral_api", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    return app


APP = _application()
DOCUMENT = build_document(APP)
COMPONENTS = DOCUMENT["components"]["schemas"]


def _operation(path: str, method: str) -> Any:
    return DOCUMENT["paths"][re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", path)][method]


def _schema_errors(schema: dict[str, Any], value: Any) -> list[str]:
    whole = schema | {"components": DOCUMENT["components"]}
    return [error.message for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(value)]


def test_openapi_document_is_valid_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


@pytest.mark.parametrize(("rule", "method"), [pytest.param(*each, id=f"{each[1]} {each[0].rule}") for each in
                                              described_routes(APP)])  # fmt: skip
def test_every_route_is_described_in_the_openapi_document(rule: Any, method: str) -> None:
    operation = _operation(rule.rule, method)
    assert operation["summary"]
    assert len(operation["tags"]) == 1
    in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"} if rule.arguments else set()
    assert in_path == rule.arguments
    assert {"200", "500"} <= set(operation["responses"])
    assert ("401" in operation["responses"]) is ("security" not in operation)
    for answer in operation["responses"].values():
        assert answer["description"]
        assert answer["content"]


def test_every_described_operation_is_a_route() -> None:
    assert set(OPERATIONS) == {rule.endpoint for rule, _ in described_routes(APP)}


def test_request_body_examples_match_their_schemas() -> None:
    examples = {name: shape["example"] for name, shape in COMPONENTS.items() if "example" in shape}
    assert len(examples) > 10
    refusals = {name: _schema_errors(COMPONENTS[name], example) for name, example in examples.items()}
    assert not any(refusals.values()), refusals


def _requests_in_docs() -> Iterator[tuple[str, str, Any]]:
    """Yield method, path and body of the requests in the docs: with curl, with requests, and in running text."""
    for text in DOCS.values():
        for url, body in re.findall(rf"curl {_BASE}(\S+)[^`]*?-d '(.*?)'\n", text, flags=re.DOTALL):
            yield "post", url, orjson.loads(body)
        for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
            yield from _requests_post_calls(code)
        # `PATCH /v1/conversations/{session_id}` with `{"title": "…"}`
        for method, path, body in re.findall(r"`(POST|PATCH) (/[^`?]+)`(?: takes| with) `(\{[^`…]*…?[^`]*\})`", text):
            if "[…" not in body and "{…" not in body:
                yield method.lower(), path, orjson.loads(body)


def _requests_post_calls(code: str) -> Iterator[tuple[str, str, Any]]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "requests.post":
            url = ast.literal_eval(node.args[0])
            for given in node.keywords:
                if given.arg == "json":
                    yield "post", url.removeprefix(_BASE), ast.literal_eval(given.value)


def test_requests_in_the_docs_match_their_schemas() -> None:
    sent = list(_requests_in_docs())
    assert len(sent) >= 3
    for method, path, body in sent:
        schema = _operation(path, method)["requestBody"]["content"]["application/json"]["schema"]
        assert _schema_errors(schema, body) == [], (method, path)


def _json_blocks(text: str) -> list[Any]:
    return [orjson.loads(each) for each in re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)]


@pytest.mark.parametrize("body", [each for text in DOCS.values() for each in _json_blocks(text)], ids=list)
def test_response_bodies_in_the_docs_match_a_schema(body: dict[str, Any]) -> None:
    named = {
        name: _schema_errors(shape, body)
        for name, shape in COMPONENTS.items()
        if set(body) <= set(shape.get("properties", ()))
    }
    assert [] in named.values(), named
