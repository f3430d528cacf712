"""The input of custom tools, which is free text: as the argument of a function, and how its grammar is enforced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistral_api.conversations.tool_items import INPUT
from mistral_api.errors import InvalidRequest
from mistral_api.grammars.errors import InvalidSyntax, Untranslatable
from mistral_api.grammars.request_budget import charged, seconds_left
from mistral_api.grammars.sized_cache import SizedCache
from mistral_api.grammars.time_limit import time_limit
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import FunctionDefinition, GrammarDefinition
from mistral_api.wire.constraint_cost import TOO_COSTLY
from mistral_api.wire.constraint_places import Constraint, PlacedSchema, grammar_constraint

_TEXT: JsonObject = {"type": "string"}
_SYNTAXES = {"lark": "grammar in lark", "regex": "regular expression"}


@dataclass(frozen=True, slots=True)
class InputForm:
    """How the input of a custom tool is enforced: by a pattern of its string, by a grammar of its text, or not.

    The pattern is one of the decoded string, as in every schema of a client (``generation.enforced_schemas``).
    ``mistake``: why the client's grammar is none at all.
    """

    pattern: str | None = None
    grammar: str | None = None
    mistake: str | None = None

    @property
    def schema(self) -> JsonObject:
        """The JSON schema of the function's arguments."""
        text = _TEXT if self.pattern is None else _TEXT | {"pattern": self.pattern}
        return {"type": "object", "properties": {INPUT: text}, "required": [INPUT], "additionalProperties": False}


_forms: SizedCache[tuple[str, str], InputForm] = SizedCache(
    lambda key, form: 1_000 + 4 * len(key[1] + (form.pattern or "") + (form.grammar or ""))
)


def input_form(syntax: str, definition: str) -> InputForm:
    """Return how the input of a custom tool with this grammar is enforced.

    A pattern does it wherever the tool is called. A grammar that no regular expression says, since its rules call
    themselves, is enforced where the call is forced. One that takes too long to translate is not enforced.

    Raises InvalidRequest where those of the request take too long together.
    """
    form = _forms.find((syntax, definition))
    if form is None:
        _require_time()
        with charged(), time_limit():
            form = _new_form(syntax, definition)
        _forms.add((syntax, definition), form)
    return form


def _require_time() -> None:
    if not seconds_left():
        text = "'tools' is refused: the grammars of its custom tools take too long to translate together."
        raise InvalidRequest(text, code=TOO_COSTLY, param="tools")


def _new_form(syntax: str, definition: str) -> InputForm:
    from mistral_api.grammars.translations import TRANSLATIONS  # noqa: PLC0415 - brings 1 MB

    pattern_of, grammar_of = TRANSLATIONS[syntax]
    try:
        pattern = _unless_untranslatable(pattern_of, definition)
        return InputForm(pattern) if pattern else InputForm(grammar=_unless_untranslatable(grammar_of, definition))
    except InvalidSyntax as error:
        return InputForm(mistake=error.reason)


def _unless_untranslatable(translate: Callable[[str], str], definition: str) -> str | None:
    try:
        return translate(definition)
    except InvalidSyntax:
        raise
    except Untranslatable:
        return None


def custom_function(
    name: str, description: str | None, grammar: GrammarDefinition | None
) -> tuple[FunctionDefinition, InputForm]:
    """Return the function that a custom tool becomes. The model is told of its grammar, also where it is enforced."""
    form = InputForm() if grammar is None else input_form(grammar["syntax"], grammar["definition"])
    texts = [description or ""]
    if grammar is not None:
        texts.append(f"Its input fits this {_SYNTAXES[grammar['syntax']]}:\n{grammar['definition']}")
    told = "\n\n".join(text for text in texts if text)
    return {"name": name, "description": told or None, "parameters": form.schema}, form


def input_constraints(tools: Sequence[Any], path: str = "tools") -> list[PlacedSchema | Constraint]:
    """Return what is enforced of the inputs of a valid request's custom tools, of a chat or a response.

    Raises InvalidRequest for a grammar that is none.
    """
    return [constraint for index, tool in enumerate(tools) for constraint in _constraints_of(tool, f"{path}[{index}]")]


def _constraints_of(tool: Mapping[str, Any], path: str) -> Iterator[PlacedSchema | Constraint]:
    kind = tool.get("type")  # a tool of Anthropic's has none
    if kind == "namespace":
        yield from input_constraints(tool["tools"], f"{path}.tools")
    if kind != "custom":
        return
    grammar = _grammar_of(tool)
    if grammar is None:
        return
    form = input_form(grammar["syntax"], grammar["definition"])
    place = f"{path}.custom.format" if "custom" in tool else f"{path}.format"
    if form.mistake is not None:
        param = f"{place}.grammar.definition" if "custom" in tool else f"{place}.definition"
        raise InvalidRequest(f"Invalid '{param}': {form.mistake}.", code="invalid_value", param=param)
    if form.pattern is not None:
        yield PlacedSchema(place, form.schema, of_tool=True)
    elif form.grammar is not None:
        yield grammar_constraint(place, form.grammar)


def _grammar_of(tool: Mapping[str, Any]) -> GrammarDefinition | None:
    """Return the grammar of a custom tool. Anthropic's tools of this type are functions, and have none."""
    form = (tool["custom"] if isinstance(tool.get("custom"), dict) else tool).get("format")
    if not isinstance(form, dict) or form.get("type") != "grammar":
        return None
    found = form.get("grammar", form)
    if not isinstance(found, dict) or found.get("syntax") not in _SYNTAXES or not isinstance(found["definition"], str):
        return None
    return {"syntax": found["syntax"], "definition": found["definition"]}
