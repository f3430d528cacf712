"""The call of one of several tools that a request forces, as what llama.cpp is told to enforce.

The call is ``{"name": …, "arguments": …}``. Each tool is compiled by itself, so that what cannot be enforced of one
costs no other anything, and no call its name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mistral_api.constraints.schemas.deadline import Deadline
from mistral_api.constraints.schemas.enforced import ANY_ARGUMENTS, Form, compile_program, written
from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.constraints.schemas.remembered import Enforced, Remembered
from mistral_api.constraints.schemas.values import Fields, Literals, Program, Property, Reference, Union, Value
from mistral_api.payload_types import JsonObject
from mistral_api.wire.constraint_cost import schema_digest


@dataclass(frozen=True, slots=True)
class CallableTool:
    """A function that may be called, with the schema of its arguments."""

    name: str
    parameters: JsonObject
    strict: bool


class ToolRefused(SchemaRefused):
    """The parameters of a strict tool cannot be enforced. ``index``: its place among the tools."""

    def __init__(self, index: int, refused: SchemaRefused) -> None:
        super().__init__(refused.path, refused.reason)
        self.index = index


_remembered = Remembered()


def enforce_calls(tools: Sequence[CallableTool]) -> Enforced:
    """Return what makes llama.cpp call one of these tools. Raises ToolRefused, for a strict one.

    What cannot be enforced of a tool that is not strict is left out. The result is remembered, and shared: it must not
    be changed.
    """
    key = schema_digest({"tools": [[each.name, each.parameters, each.strict] for each in tools]}), "calls"
    found = _remembered.find(key)
    if not isinstance(found, Enforced):
        found = _enforced(tools)
        _remembered.add(key, found)
    return found


def _enforced(tools: Sequence[CallableTool]) -> Enforced:
    program = _program(tools)
    try:
        return written(program, Deadline())
    except SchemaRefused:  # by all that the tools demand together: only the strict ones have to be exact
        loose = [each if each.strict else replace(each, parameters=ANY_ARGUMENTS) for each in tools]
        return written(_program(loose), Deadline())


def _program(tools: Sequence[CallableTool]) -> Program:
    """Return the calls of all of these tools as one program."""
    joined = Program(Reference(0), {}, faithful=False)
    calls: list[Value] = []
    for index, tool in enumerate(tools):
        first = max(joined.definitions, default=0) + 1
        try:
            arguments = compile_program(tool.parameters, Form.ANSWER if tool.strict else Form.TOOL, first)
        except SchemaRefused as refused:
            raise ToolRefused(index, refused) from refused
        joined.definitions |= arguments.definitions
        joined.notes |= arguments.notes
        joined.needs_grammar |= arguments.needs_grammar
        calls.append(_call(tool.name, arguments.root))
    joined.definitions[0] = Union(tuple(calls))
    return joined


def _call(name: str, arguments: Value) -> Fields:
    named = Literals((json.dumps(name, ensure_ascii=False),))
    return Fields((Property("name", named, True), Property("arguments", arguments, True)), closed=True)
