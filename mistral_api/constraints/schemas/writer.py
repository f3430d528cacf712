"""Values as a JSON schema of the keywords that llama.cpp's converter enforces exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mistral_api.constraints.schemas.usage import shared_definitions
from mistral_api.constraints.schemas.values import (
    LARGEST,
    Fields,
    IntegerRange,
    Items,
    Literals,
    Program,
    Reference,
    Simple,
    Text,
    Union,
    Value,
)
from mistral_api.payload_types import JsonObject, omit

# An object without keywords means an object to older converters.
_ANY = {"type": ["string", "number", "boolean", "null", "object", "array"]}
_OF_STRINGS = ("format", "pattern")


def write_schema(program: Program) -> JsonObject:
    """Return the schema of a program that needs no grammar."""
    writer = _Writer(program)
    schema = writer.definition(program.root.number)
    definitions = {_name(number): writer.definition(number) for number in writer.shared}
    return schema | {"$defs": definitions} if definitions else schema


def _name(number: int) -> str:
    return f"d{number}"


class _Writer:
    def __init__(self, program: Program) -> None:
        self._program = program
        self.shared = shared_definitions(program)
        self._is_shared = set(self.shared)
        self._writers: dict[type[Value], Callable[[Any], JsonObject]] = {
            Reference: self._reference,
            Simple: _simple,
            Literals: _literals,
            IntegerRange: _integer_range,
            Text: _text,
            Union: self._union,
            Items: self._items,
            Fields: self._fields,
        }

    def definition(self, number: int) -> JsonObject:
        """Return a definition with its annotations."""
        value = self._program.definitions[number]
        notes = self._program.notes.get(number, {})
        written = self._write(value)
        if not isinstance(value, Simple | Text) or written.get("type") != "string":
            notes = omit(notes, _OF_STRINGS)
        if "pattern" in notes and "pattern" not in written:
            notes = _described(notes)
        return omit(notes, ("pattern",)) | written

    def _write(self, value: Value) -> JsonObject:
        return self._writers[type(value)](value)

    def _reference(self, value: Reference) -> JsonObject:
        if value.number in self._is_shared:
            return {"$ref": f"#/$defs/{_name(value.number)}"}
        return self.definition(value.number)

    def _union(self, value: Union) -> JsonObject:
        return {"anyOf": [self._write(each) for each in value.choices]}

    def _items(self, value: Items) -> JsonObject:
        if value.prefix:
            return {"type": "array", "prefixItems": [self._write(each) for each in value.prefix]}
        if value.rest is None:
            return {"type": "array", "items": dict(_ANY), "maxItems": 0}
        counts: JsonObject = {"minItems": value.low} if value.low else {}
        if value.high is not None:
            counts["maxItems"] = value.high
        return {"type": "array", "items": self._write(value.rest)} | counts

    def _fields(self, value: Fields) -> JsonObject:
        if value.extra is not None:
            return {"type": "object", "additionalProperties": self._write(value.extra)}
        written: JsonObject = {
            "type": "object",
            "properties": {each.name: self._write(each.value) for each in value.properties},
            "required": [each.name for each in value.properties if each.required],
            "additionalProperties": False,
        }
        return written


def _described(notes: JsonObject) -> JsonObject:
    """Return annotations that tell of a pattern which is not enforced."""
    told = f"Pattern: {notes['pattern']}"
    description = notes.get("description")
    return notes | {"description": f"{description} {told}" if isinstance(description, str) else told}


def _simple(value: Simple) -> JsonObject:
    return dict(_ANY) if value.kind == "any" else {"type": value.kind}


def _literals(value: Literals) -> JsonObject:
    return {"enum": [json.loads(text) for text in value.texts]}


def _integer_range(value: IntegerRange) -> JsonObject:
    low, high = value.low, value.high
    if low is None and high is not None and high < 0:
        low = -LARGEST  # llama.cpp would write -03
    written: dict[str, Any] = {"type": "integer"}
    if low is not None:
        written["minimum"] = low
    if high is not None:
        written["maximum"] = high
    return written


def _text(value: Text) -> JsonObject:
    if value.written is not None:
        return {"type": "string", "pattern": value.written}
    written: JsonObject = {"type": "string"}
    if value.low:
        written["minLength"] = value.low
    if value.high is not None:
        written["maxLength"] = value.high
    return written
