"""Which part of the client's JSON schemas llama.cpp refused, by the JSON pointer in what it says.

Its sentences are those of common/json-schema-to-grammar.cpp. The pointer is one into the schema that we, or llama.cpp,
made of the client's: for a choice among tools, a schema of them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from mistral_api.payload_types import JsonObject
from mistral_api.wire.constraint_places import GRAMMAR_FIELD, Constraint, find_constraints

_POINTER = re.compile(r"JSON schema error at #(\S*?):")
# llama.cpp makes one schema of all tools: these steps lead to the parameters of one of them.
_TOOL_STEPS = re.compile(r"^(?:/anyOf/(\d+))?(?:/properties/(?:arguments|parameters))?(?=/|$)")
_UNRECOGNIZED_TYPE = re.compile(r"unrecognized type (\S+)")


def refused_schema(message: str, body: JsonObject) -> str | None:
    """Return the path of the part of a JSON schema that llama.cpp's message points at.

    Where several schemas have such a part, it is that of the type that the message names.
    """
    schemas = [each for each in find_constraints(body) if not each.is_grammar]
    pointer = _POINTER.search(message)
    found = [] if pointer is None else [each for schema in schemas for each in _pointed_at(schema, pointer[1])]
    kind = _UNRECOGNIZED_TYPE.search(message)
    if kind is not None:
        found = [(path, node) for path, node in found if isinstance(node, dict) and node.get("type") == kind[1]]
    if found:
        return found[0][0]
    return schemas[0].path if len(schemas) == 1 else _common_field(schemas)


def refused_constraint(body: JsonObject) -> str | None:
    """Return the path of the one constraint that a grammar was made of; where there are several, their common field."""
    if body.get(GRAMMAR_FIELD):
        return GRAMMAR_FIELD
    found = find_constraints(body)
    return found[0].path if len(found) == 1 else _common_field(found)


def _common_field(schemas: Sequence[Constraint]) -> str | None:
    fields = {re.split(r"[.\[]", schema.path)[0] for schema in schemas}
    return fields.pop() if len(fields) == 1 else None


def _pointed_at(schema: Constraint, pointer: str) -> Iterator[tuple[str, Any]]:
    """Yield what a JSON pointer leads to in a schema; in that of a tool without the steps that lead to the tool."""
    pointers = dict.fromkeys((pointer, _TOOL_STEPS.sub("", pointer)))
    for each in pointers:
        path, node = schema.path, schema.value
        steps = [step.replace("~1", "/").replace("~0", "~") for step in each.split("/")[1:]]
        for step in steps:
            path, node = _step(path, node, step)
        if node is not None:
            yield path, node


def _step(path: str, node: Any, step: str) -> tuple[str, Any]:
    if isinstance(node, list):
        return f"{path}[{step}]", node[int(step)] if step.isdecimal() and int(step) < len(node) else None
    return f"{path}.{step}", node.get(step) if isinstance(node, dict) else None
