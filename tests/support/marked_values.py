"""Values for the schemas of ``/openapi.json`` in which every text and every key that a client may choose is a marker.

A marker is a word that is nowhere else, so that whoever finds it in a file knows where in which request it stood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

JsonSchema = dict[str, Any]
DEPTH = 5
# Texts of these forms hold no marker.
_EXAMPLES = {"uuid": "0199f0a2-7c3e-7abc-8def-0123456789ab", "uri": "https://example.com/"}


class Marks:
    """Makes markers, and knows the place of each: which field of which request."""

    def __init__(self, beginning: str = "zqmark") -> None:
        self.pattern = re.compile(rf"{beginning}\d{{5}}k".encode())
        self._beginning = beginning
        self._places: list[str] = []

    def new(self, place: str) -> str:
        """Return a marker that stands there."""
        self._places.append(place)
        return f"{self._beginning}{len(self._places) - 1:05d}k"

    def place_of(self, marker: str) -> str:
        """Return where a marker stood."""
        return self._places[int(marker[len(self._beginning) : -1])]

    def any_in(self, value: Any) -> bool:
        """Whether a value has a marker."""
        return self.pattern.search(repr(value).encode()) is not None

    def __len__(self) -> int:
        return len(self._places)


class SchemaMarker:
    """Makes values for schemas that refer to each other within one document."""

    def __init__(self, document: JsonSchema, marks: Marks) -> None:
        self._schemas = document["components"]["schemas"]
        self._marks = marks

    def properties(self, schema: JsonSchema) -> dict[str, JsonSchema]:
        """Return the schemas of an object's properties by name."""
        found: dict[str, JsonSchema] = self.resolve(schema).get("properties", {})
        return found

    def resolve(self, schema: JsonSchema) -> JsonSchema:
        """Return the schema that is meant."""
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return schema

    def valid_values(self, schema: JsonSchema, place: str, depth: int = DEPTH) -> list[Any]:
        """Return allowed values with markers: at least one for each alternative, without null."""
        schema = self.resolve(schema)
        if "anyOf" in schema:
            return [value for each in schema["anyOf"] for value in self.valid_values(each, place, depth)]
        if "const" in schema or "enum" in schema:
            return [value for value in schema.get("enum", [schema.get("const")]) if value is not None]
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        makers: dict[str, Callable[[JsonSchema, str, int], list[Any]]] = {
            "string": self._texts, "array": self._arrays, "object": self._objects,
            "integer": self._numbers, "number": self._numbers, "boolean": lambda *_: [True],
        }  # fmt: skip
        found = [value for kind in kinds if kind in makers for value in makers[kind](schema, place, depth)]
        return found if kinds or "not" in schema else [{self._marks.new(place): self._marks.new(place)}]

    def _texts(self, schema: JsonSchema, place: str, _depth: int) -> list[Any]:
        if "format" in schema:
            return [_EXAMPLES.get(schema["format"], self._marks.new(place))]
        marker = self._marks.new(place)
        if len(marker) > schema.get("maxLength", len(marker)):
            return []
        pattern = schema.get("pattern")
        if pattern is None or re.search(pattern, marker):
            return [marker]
        prefixed = [f"{beginning}{marker}" for beginning in ("data:image/png;base64,", "resp_", "conv_", "msg_")]
        return [text for text in prefixed if re.search(pattern, text)]

    def _numbers(self, schema: JsonSchema, _place: str, _depth: int) -> list[Any]:
        return [min(max(1, schema.get("minimum", 1)), schema.get("maximum", 1))]

    def _arrays(self, schema: JsonSchema, place: str, depth: int) -> list[Any]:
        if depth == 0:
            return []
        first = [self.valid_values(each, place, depth - 1)[:1] for each in schema.get("prefixItems", [])]
        beginning = [value for values in first for value in values]
        items = self.valid_values(schema["items"], f"{place}[]", depth - 1) if "items" in schema else []
        need = max(0, schema.get("minItems", 0) - len(beginning))
        return [[*beginning, *([item] * max(1, need))] for item in items] or [beginning]

    def _objects(self, schema: JsonSchema, place: str, depth: int) -> list[Any]:
        if depth == 0:
            return []
        by_name = {
            name: self.valid_values(each, f"{place}.{name}", depth - 1)
            for name, each in schema.get("properties", {}).items()
        }
        needed = [by_name[name] for name in schema.get("required", ()) if name in by_name]
        if any(not values for values in needed):
            return []
        by_name = {name: values for name, values in by_name.items() if values}
        count = max((len(values) for values in by_name.values()), default=1)
        objects = [{name: values[number % len(values)] for name, values in by_name.items()} for number in range(count)]
        for each in objects:
            each.update(self._free_keys(schema, place, depth))
        return objects

    def _free_keys(self, schema: JsonSchema, place: str, depth: int) -> dict[str, Any]:
        """Return a property of a name of the client's own, where the schema describes such."""
        more = schema.get("additionalProperties")
        free = isinstance(more, dict) or (more is None and not schema.get("properties"))
        names = self._texts(schema.get("propertyNames", {}), f"{place} (key)", 0) if free else []
        values = self.valid_values(more, f"{place}.*", depth - 1) if isinstance(more, dict) else []
        return dict(zip(names, values or [self._marks.new(f"{place}.*")], strict=False))

    def invalid_values(self, schema: JsonSchema, place: str) -> Iterator[Any]:
        """Yield values with markers that are mostly not allowed: of another type, too long, of another form."""
        new = self._marks.new
        yield f"\0 {new(f'{place} (a text)')}"
        parts = [new(f"{place} (an item)"), {"type": new(f"{place} (a type)"), "text": new(f"{place} (a part)")}]
        yield {new(f"{place} (a key)"): new(f"{place} (a value)"), "x": parts}
        yield parts
        most = self.resolve(schema).get("maxLength")
        if most is not None:
            yield new(f"{place} (too long)") + "x" * most
