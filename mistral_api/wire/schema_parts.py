"""The schemas inside a JSON schema: which there are, where references lead, and what a generation meets how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mistral_api.wire.field_errors import quote_value
from mistral_api.wire.shapes import JsonSchema

# Keywords whose value maps names to schemas, and those whose value is data.
NAMED_SCHEMAS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
DATA = frozenset(("enum", "const", "default", "examples"))
UNIONS = ("anyOf", "oneOf")
# Those whose schemas hold for any number of values: of elements, and of properties of any name.
_REPEATING = ("items", "additionalItems", "additionalProperties", "patternProperties")
MOST_ALTERNATIVE_PARTS = 200


def parts_with_paths(schema: JsonSchema) -> Iterator[tuple[JsonSchema, str]]:
    """Yield the schema and every schema inside it, each with its path; without recursion, as these may be deep."""
    open_parts: list[tuple[JsonSchema, str]] = [(schema, "")]
    while open_parts:
        part, place = open_parts.pop()
        yield part, place
        for keyword, value in part.items():
            if keyword not in DATA:
                open_parts += _parts_of_keyword(keyword, value, f"{place}.{quote_value(keyword)}")


def _parts_of_keyword(keyword: str, value: object, place: str) -> Iterator[tuple[JsonSchema, str]]:
    if isinstance(value, list):
        yield from ((each, f"{place}[{index}]") for index, each in enumerate(value) if isinstance(each, dict))
    elif isinstance(value, dict) and keyword in NAMED_SCHEMAS:
        yield from ((each, f"{place}.{quote_value(name)}") for name, each in value.items() if isinstance(each, dict))
    elif isinstance(value, dict):
        yield value, place


class SchemaTree:
    """A JSON schema with all the schemas inside it."""

    def __init__(self, schema: JsonSchema) -> None:
        self.schema = schema
        # The schema itself first, each with its path.
        self.placed = list(parts_with_paths(schema))
        self.parts = [part for part, _ in self.placed]
        self._targets: dict[str, Any] = {}

    def target(self, part: JsonSchema) -> Any:
        """Return what the ``$ref`` of a part leads to; None where that is nothing, or where it has none.

        llama.cpp takes the names between slashes as they are, and numbers in arrays (``resolve_refs`` in
        common/json-schema-to-grammar.cpp).
        """
        reference = part.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        if reference not in self._targets:
            self._targets[reference] = self._resolve(reference)
        return self._targets[reference]

    def _resolve(self, reference: str) -> Any:
        target: Any = self.schema
        for name in reference.split("/")[1:]:
            if isinstance(target, dict) and name in target:
                target = target[name]
            elif isinstance(target, list) and name.isdecimal() and int(name[:9]) < len(target):
                target = target[int(name[:9])]
            else:
                return None
        return target

    def repeated(self) -> list[JsonSchema]:
        """Return the parts that a generation may meet again and again.

        They are those of elements, and of properties of any name. What is referred to may be met by each reference.
        """
        targets = {id(target): target for part in self.parts if isinstance(target := self.target(part), dict)}
        holders = [
            inner
            for part in self.parts
            for keyword in _REPEATING
            if isinstance(value := part.get(keyword), dict)
            for inner, _ in _parts_of_keyword(keyword, value, "")
        ]
        return [part for holder in [*holders, *targets.values()] for part, _ in parts_with_paths(holder)]

    def alternatives(self, part: JsonSchema) -> list[JsonSchema] | None:
        """Return what a value of a part begins as: the part, and the schemas that its references and unions lead to.

        None where these are more than MOST_ALTERNATIVE_PARTS.
        """
        found: dict[int, JsonSchema] = {}
        open_parts = [part]
        while open_parts:
            each = open_parts.pop()
            if id(each) in found:
                continue
            found[id(each)] = each
            open_parts += self._next_alternatives(each)
            if len(found) + len(open_parts) > MOST_ALTERNATIVE_PARTS:
                return None
        return list(found.values())

    def _next_alternatives(self, part: JsonSchema) -> Iterator[JsonSchema]:
        target = self.target(part)
        if isinstance(target, dict):
            yield target
        for keyword in (*UNIONS, "allOf"):
            value = part.get(keyword)
            if isinstance(value, list):
                yield from (each for each in value if isinstance(each, dict))
