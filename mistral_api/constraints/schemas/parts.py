"""The parts of a JSON schema: where each stands, and what references lead to."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.payload_types import JsonObject
from mistral_api.wire.field_errors import quote_value
from mistral_api.wire.schema_parts import parts_with_paths

_ANCHORS = ("$anchor", "$dynamicAnchor")
# Of an element of an array (RFC 6901, section 4).
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class SchemaParts:
    """A JSON schema with the places of its parts.

    Parts that are made later (:meth:`derive`) stand where the part stands that they are made of. They are known by
    their identity, so all of them are kept.
    """

    def __init__(self, schema: JsonObject) -> None:
        self.schema = schema
        self._kept: list[JsonObject] = []
        self._places: dict[int, str] = {}
        self._anchors: dict[str, JsonObject] = {}
        # The names that more than one part has.
        self._ambiguous: set[str] = set()
        for part, place in parts_with_paths(schema):
            self._places[id(part)] = place
            self._note_names(part)

    def _note_names(self, part: JsonObject) -> None:
        for keyword in _ANCHORS:
            if isinstance(part.get(keyword), str):
                self._note_name("#" + part[keyword], part)
        if isinstance(part.get("$id"), str):
            self._note_name(part["$id"], part)
            self._note_name(_joined(str(self.schema.get("$id") or ""), part["$id"]), part)

    def _note_name(self, name: str, part: JsonObject) -> None:
        if self._anchors.setdefault(name, part) is not part:
            self._ambiguous.add(name)

    def place(self, part: Any, keyword: str = "") -> str:
        """Return the path of a part, or of a keyword in it."""
        place = self._places.get(id(part), "")
        return f"{place}.{quote_value(keyword)}" if keyword else place

    def derive(self, origin: JsonObject, part: JsonObject) -> JsonObject:
        """Keep a part that is made of another one, and return it."""
        self._kept.append(part)
        for each, place in parts_with_paths(part):
            self._places.setdefault(id(each), place if each is not part else self.place(origin))
        self._places[id(part)] = self.place(origin)
        return part

    def target(self, part: JsonObject) -> JsonObject | bool:
        """Return what the ``$ref`` of a part leads to.

        Raises SchemaRefused where that is nothing in this schema, and where a name is that of several parts.
        """
        reference, place = part["$ref"], self.place(part, "$ref")
        if not isinstance(reference, str):
            raise SchemaRefused(place, "a reference has to be a string")
        if not self._ambiguous.isdisjoint(self._names_in(reference)):
            raise SchemaRefused(place, f"'{quote_value(reference)}' leads to more than one schema")
        found = self._find(reference)
        if not isinstance(found, dict | bool):
            where = f"'{quote_value(reference)}' leads to no schema"
            raise SchemaRefused(place, f"{where} in this one; references to other documents are not supported")
        if isinstance(found, dict):
            self._places.setdefault(id(found), place)
        return found

    def _names_in(self, reference: str) -> tuple[str, ...]:
        """Return the names of parts that a reference may hold."""
        document, fragment = _divided(reference)
        joined = _joined(str(self.schema.get("$id") or ""), document)
        return (reference, "#" + unquote(fragment), *((document, joined) if document else ()))

    def _find(self, reference: str) -> Any:
        if reference in self._anchors:
            return self._anchors[reference]
        document, fragment = _divided(reference)
        base: Any = self.schema
        own = str(self.schema.get("$id") or "")
        if document and document not in (own, _divided(own)[0]):
            base = self._anchors.get(document) or self._anchors.get(_joined(own, document))
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._anchors.get("#" + fragment)
        return _at_pointer(base, fragment)


def _divided(reference: str) -> tuple[str, str]:
    """Return a reference without its fragment, and the fragment; what is no URL has none."""
    try:
        document, fragment = urldefrag(reference)
    except ValueError:  # as http://[
        return reference, ""
    return document, fragment


def _joined(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:
        return url


def _at_pointer(value: Any, pointer: str) -> Any:
    """Return what a JSON pointer leads to (RFC 6901), None where that is nothing."""
    for escaped in pointer.split("/")[1:]:
        name = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
