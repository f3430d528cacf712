"""What the model server is told to enforce for a JSON schema of a client."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mistral_api.constraints.schemas.compiler import SchemaCompiler
from mistral_api.constraints.schemas.context import Rules
from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.constraints.schemas.grammar import write_grammar
from mistral_api.constraints.schemas.writer import write_schema
from mistral_api.grammars.errors import Untranslatable
from mistral_api.payload_types import JsonObject
from mistral_api.wire.constraint_cost import schema_digest

_MOST_REMEMBERED = 1_000


class Form(Enum):
    """Where a schema stands, which decides how it may be enforced.

    ``ANSWER``: the whole answer of a chat. ``TEXT``: that of a completion without a chat. ``STRICT_TOOL``: the
    arguments of a strict tool that the model may choose. ``TOOL``: those of another tool. ``CALL``: the call of a tool
    that is forced, and not strict.
    """

    ANSWER = "answer"
    TEXT = "text"
    STRICT_TOOL = "strict tool"
    TOOL = "tool"
    CALL = "call"


# What is enforced of a tool that no arguments fit, or whose schema is beyond all measure.
_ANY_ARGUMENTS: JsonObject = {"type": "object"}
_RULES = {
    Form.ANSWER: Rules(),
    Form.TEXT: Rules(),
    Form.STRICT_TOOL: Rules(grammar=False),
    Form.TOOL: Rules(lenient=True, grammar=False),
    Form.CALL: Rules(lenient=True, grammar=True),
}


@dataclass(frozen=True, slots=True)
class Enforced:
    """A JSON schema for llama.cpp's converter, or a grammar in GBNF: one of both."""

    schema: JsonObject | None = None
    grammar: str | None = None


class _Remembered:
    """What schemas have been compiled to, by their digests. Many threads read and write it."""

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, Form], Enforced | SchemaRefused] = {}

    def find(self, key: tuple[bytes, Form]) -> Enforced | SchemaRefused | None:
        return self._found.get(key)

    def add(self, key: tuple[bytes, Form], found: Enforced | SchemaRefused) -> None:
        if len(self._found) >= _MOST_REMEMBERED:
            self._found.clear()
        self._found[key] = found


_remembered = _Remembered()


def enforce_schema(schema: JsonObject, form: Form) -> Enforced:
    """Return what makes llama.cpp generate only what is valid by a schema. Raises SchemaRefused.

    A schema that llama.cpp enforces as it stands is returned as it stands. The result is remembered, and shared: it
    must not be changed.
    """
    key = schema_digest(schema), form
    found = _remembered.find(key)
    if found is None:
        try:
            found = _compile(schema, form)
        except SchemaRefused as refused:
            found = refused
        _remembered.add(key, found)
    if isinstance(found, SchemaRefused):
        raise SchemaRefused(found.path, found.reason)
    return found


def _compile(schema: JsonObject, form: Form) -> Enforced:
    try:
        program = SchemaCompiler(schema, _RULES[form]).program()
        if program.needs_grammar or form is Form.TEXT:
            return Enforced(grammar=write_grammar(program))
        return Enforced(schema if program.faithful else write_schema(program))
    except (SchemaRefused, Untranslatable, RecursionError) as error:
        if _RULES[form].lenient:
            return Enforced(dict(_ANY_ARGUMENTS))
        if isinstance(error, SchemaRefused):
            raise
        reason = error.reason if isinstance(error, Untranslatable) else "it is nested too deeply"
        raise SchemaRefused("", reason) from error
