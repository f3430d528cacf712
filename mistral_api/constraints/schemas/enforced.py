"""What the model server is told to enforce for a JSON schema of a client."""

from __future__ import annotations

from enum import Enum

from mistral_api.constraints.schemas.compiler import SchemaCompiler
from mistral_api.constraints.schemas.context import Strictness
from mistral_api.constraints.schemas.deadline import Deadline
from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.constraints.schemas.grammar import value_grammar
from mistral_api.constraints.schemas.remembered import Enforced, Outcome, Remembered
from mistral_api.constraints.schemas.values import Program
from mistral_api.constraints.schemas.writer import write_schema
from mistral_api.grammars.errors import Untranslatable
from mistral_api.payload_types import JsonObject
from mistral_api.wire.constraint_cost import schema_digest


class Form(Enum):
    """Where a schema stands, which decides how it may be enforced.

    ``ANSWER``: the whole answer of a chat, or the arguments of a strict tool that it has to call. ``TEXT``: the answer
    of a completion without a chat. ``STRICT_TOOL``: the arguments of a strict tool that the model may choose. ``TOOL``:
    those of another tool.
    """

    ANSWER = "answer"
    TEXT = "text"
    STRICT_TOOL = "strict tool"
    TOOL = "tool"


# What is enforced of a tool that no arguments fit, or whose schema is beyond all measure.
ANY_ARGUMENTS: JsonObject = {"type": "object"}
_TOO_DEEP = "it is nested too deeply"
_STRICTNESS = {
    Form.ANSWER: Strictness(),
    Form.TEXT: Strictness(),
    Form.STRICT_TOOL: Strictness(grammar=False),
    Form.TOOL: Strictness(lenient=True, grammar=False),
}


_remembered = Remembered()


def enforce_schema(schema: JsonObject, form: Form) -> Enforced:
    """Return what makes llama.cpp generate only what is valid by a schema. Raises SchemaRefused.

    A schema that llama.cpp enforces as it stands is returned as it stands. The result is remembered, and shared: it
    must not be changed.
    """
    key = schema_digest(schema), form.value
    found = _remembered.find(key)
    if found is None:
        found = _outcome(schema, form)
        _remembered.add(key, found)
    if isinstance(found, SchemaRefused):
        raise SchemaRefused(found.path, found.reason)
    return found


def _outcome(schema: JsonObject, form: Form) -> Outcome:
    deadline = Deadline()
    try:
        program = _compiled(schema, _STRICTNESS[form], deadline, 0)
        if form is Form.TEXT:
            return Enforced(grammar=_grammar(program, deadline))
        return Enforced(schema) if program.faithful and not program.needs_grammar else written(program, deadline)
    except SchemaRefused as refused:
        return Enforced(dict(ANY_ARGUMENTS)) if _STRICTNESS[form].lenient else refused


def compile_program(schema: JsonObject, form: Form, first: int) -> Program:
    """Return what a schema allows, as definitions with numbers from ``first`` on.

    Raises SchemaRefused for the forms that are no tool's which is not strict.
    """
    strictness = _STRICTNESS[form]
    try:
        return _compiled(schema, strictness, Deadline(), first)
    except SchemaRefused:
        if not strictness.lenient:
            raise
        return _compiled(ANY_ARGUMENTS, strictness, Deadline(), first)


def _compiled(schema: JsonObject, strictness: Strictness, deadline: Deadline, first: int) -> Program:
    try:
        return SchemaCompiler(schema, strictness, deadline, first).program()
    except RecursionError as error:
        raise SchemaRefused("", _TOO_DEEP) from error


def written(program: Program, deadline: Deadline) -> Enforced:
    """Return a program as a schema, or as a grammar where it needs one. Raises SchemaRefused."""
    if program.needs_grammar:
        return Enforced(grammar=_grammar(program, deadline))
    try:
        return Enforced(write_schema(program))
    except RecursionError as error:
        raise SchemaRefused("", _TOO_DEEP) from error


def _grammar(program: Program, deadline: Deadline) -> str:
    try:
        return value_grammar(program, deadline)
    except Untranslatable as error:
        raise SchemaRefused("", error.reason) from error
    except RecursionError as error:
        raise SchemaRefused("", _TOO_DEEP) from error
