"""Small builders of JSON schemas (draft 2020-12, the dialect of OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

Shape = dict[str, Any]

TEXT: Shape = {"type": "string"}
FILLED: Shape = {"type": "string", "minLength": 1}
INTEGER: Shape = {"type": "integer"}
COUNT: Shape = {"type": "integer", "minimum": 0}
NUMBER: Shape = {"type": "number"}
BOOLEAN: Shape = {"type": "boolean"}
OBJECT: Shape = {"type": "object"}
NULL: Shape = {"type": "null"}
ANYTHING: Shape = {}
UNIX_SECONDS: Shape = {"type": "integer", "description": "Unix seconds"}


def only(value: object) -> Shape:
    """This value and no other."""
    return {"const": value}


def words(*allowed: str) -> Shape:
    """One of a few words."""
    return {"type": "string", "enum": list(allowed)}


def text(low: int = 0, high: int | None = None, form: str | None = None) -> Shape:
    """A string of so many characters; ``form`` is a regular expression that all of it matches."""
    shape: Shape = {"type": "string"}
    if low:
        shape["minLength"] = low
    if high is not None:
        shape["maxLength"] = high
    if form is not None:
        shape["pattern"] = f"^(?:{form})$"
    return shape


def number(kind: str, low: float | None, high: float | None) -> Shape:
    """A number within bounds; ``kind`` is ``integer`` or ``number``."""
    bounds = {"minimum": low, "maximum": high}
    return {"type": kind} | {name: bound for name, bound in bounds.items() if bound is not None}


def array(items: Shape, low: int = 0, high: int | None = None) -> Shape:
    """An array of these."""
    shape: Shape = {"type": "array", "items": items}
    if low:
        shape["minItems"] = low
    if high is not None:
        shape["maxItems"] = high
    return shape


def either(*shapes: Shape) -> Shape:
    """Any of these."""
    return {"anyOf": list(shapes)}


def nullable(shape: Shape) -> Shape:
    """That, or null."""
    if isinstance(shape.get("type"), str) and not {"enum", "const"} & set(shape):
        return shape | {"type": [shape["type"], "null"]}
    if "anyOf" in shape:
        return shape | {"anyOf": [*shape["anyOf"], NULL]}
    return either(shape, NULL)


def record(required: dict[str, Shape], optional: dict[str, Shape] | None = None) -> Shape:
    """An object with these fields, and maybe with others; what is said of one as required counts."""
    shape: Shape = {"type": "object", "properties": (optional or {}) | required}
    if required:
        shape["required"] = list(required)
    return shape


def ref(name: str) -> Shape:
    """A component of the document."""
    return {"$ref": f"#/components/schemas/{name}"}
