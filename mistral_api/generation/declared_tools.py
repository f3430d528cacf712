"""The catalogue of the tools that a request declares, of a chat or of the Responses API, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mistral_api.conversations.tool_items import CUSTOM_CALL, FUNCTION_CALL
from mistral_api.errors import InvalidRequest
from mistral_api.generation.custom_inputs import InputForm, custom_function
from mistral_api.generation.openai_client_tools import CLIENT_TOOLS
from mistral_api.generation.tool_catalogue import CatalogueTool, ToolCatalogue, is_special, tool_origin, unique_name
from mistral_api.payload_types import without_nulls
from mistral_api.payload_types.chat import (
    ChatMessage,
    ChatPayload,
    CustomDefinition,
    FunctionDefinition,
    GrammarDefinition,
    ToolChoice,
)
from mistral_api.payload_types.responses import NamedResponseTool, ResponseTool, ResponseToolChoice
from mistral_api.wire.response_tools import choices_of, flat_tools, names_tool


@dataclass(slots=True)
class _Builder:
    """Gathers the tools of a catalogue; a tool that is declared twice counts once."""

    tools: dict[tuple[str, str, str], CatalogueTool] = field(default_factory=dict)
    taken: dict[str, None] = field(default_factory=dict)

    def add(self, kind: str, namespace: str, name: str, function: FunctionDefinition, form: InputForm) -> None:
        origin = (kind, namespace, name)
        if origin in self.tools:
            return
        unique = unique_name(kind, namespace, name, self.taken)
        self.taken[unique] = None
        named = without_nulls(function | {"name": unique})
        self.tools[origin] = CatalogueTool(kind, name, namespace, named, form.grammar)

    def catalogue(self) -> ToolCatalogue:
        return ToolCatalogue(list(self.tools.values()))


def response_catalogue(declared: Sequence[ResponseTool], loaded: Iterable[ResponseTool] = ()) -> ToolCatalogue:
    """Return the catalogue of a valid request of the Responses API, without what only OpenAI can run.

    ``loaded``: the tools that items of its input, or of the conversation, bring.
    """
    builder, introductions = _Builder(), _introductions([*declared, *loaded])
    for tool, namespace in flat_tools([*declared, *loaded]):
        kind, _, name = tool_origin(tool, namespace)
        function, form = _function(tool)
        introduction = introductions.pop(namespace, None)
        if introduction:
            function["description"] = f"{introduction}\n\n{function.get('description') or ''}".strip()
        builder.add(kind, namespace, name, function, form)
    return builder.catalogue()


def _introductions(tools: Iterable[ResponseTool]) -> dict[str, str]:
    """Return the descriptions of namespaces; the first function of each carries it to the model."""
    return {
        tool["name"]: f"{tool['name']}: {tool['description']}"
        for tool in tools
        if tool["type"] == "namespace" and tool.get("description")
    }


def _function(tool: ResponseTool) -> tuple[FunctionDefinition, InputForm]:
    """Return the function that a tool becomes, whatever its name will be."""
    if tool["type"] == "function":
        own: FunctionDefinition = {
            "name": tool["name"],
            "description": tool.get("description"),
            "parameters": tool.get("parameters"),
            "strict": tool.get("strict"),
        }
        return own, InputForm()
    if tool["type"] == "custom":
        form = tool.get("format")
        grammar: GrammarDefinition | None = None
        if form is not None and form["type"] == "grammar":
            grammar = {"syntax": form["syntax"], "definition": form["definition"]}
        return custom_function(tool["name"], tool.get("description"), grammar)
    function = CLIENT_TOOLS[tool["type"]].copy()
    for name in ("description", "parameters"):
        if tool.get(name):
            function[name] = tool[name]
    return function, InputForm()


def response_choice(
    catalogue: ToolCatalogue, declared: Sequence[ResponseTool], choice: str | ResponseToolChoice | None
) -> tuple[ToolCatalogue, str | ToolChoice | None]:
    """Return the tools that a valid choice leaves, and the choice among them as a chat has it.

    ``declared``: all tools, those that were loaded too. Raises InvalidRequest for a tool that nobody declared.
    """
    if not isinstance(choice, dict):
        return catalogue, choice
    named = [_named_functions(catalogue, declared, each) for each in choices_of(choice)]
    if choice["type"] == "allowed_tools":
        return catalogue.allowed(name for names in named for name in names), choice["mode"]
    if not named[0]:
        text = "'tool_choice' names a function that is not in 'tools'."
        raise InvalidRequest(text, code="invalid_value", param="tool_choice")
    # One without a namespace goes before those of the same name that have one.
    candidates = [name for name, namespace in named[0].items() if not namespace] or list(named[0])
    if len(candidates) > 1:
        text = "'tool_choice' names a function that several namespaces have; say which by 'namespace'."
        raise InvalidRequest(text, code="invalid_value", param="tool_choice")
    return catalogue, {"type": "function", "function": {"name": candidates[0]}}


def _named_functions(
    catalogue: ToolCatalogue, declared: Sequence[ResponseTool], choice: NamedResponseTool | ResponseToolChoice
) -> dict[str, str]:
    """Return the functions that one tool of a choice names, each with the namespace that it is from."""
    return {
        catalogue.function_name(*tool_origin(tool, namespace)): namespace
        for tool, namespace in flat_tools(declared)
        if names_tool(choice, tool, namespace)
    }


def chat_catalogue(payload: ChatPayload, *histories: Sequence[ChatMessage]) -> ToolCatalogue | None:
    """Return the catalogue of a chat request. None where functions are all that it knows, as in most.

    ``histories``: the messages of the session that go before its own.
    """
    tools = payload.get("tools") or ()
    if not any(tool["type"] == "custom" for tool in tools) and not any(
        map(_has_special, (payload.get("messages") or (), *histories))
    ):
        return None
    builder = _Builder()
    for tool in tools:
        if tool["type"] == "custom":
            builder.add(CUSTOM_CALL, "", tool["custom"]["name"], *custom_function(*_custom_fields(tool["custom"])))
        else:
            builder.add(FUNCTION_CALL, "", tool["function"]["name"], tool["function"], InputForm())
    return builder.catalogue()


def _custom_fields(custom: CustomDefinition) -> tuple[str, str | None, GrammarDefinition | None]:
    form = custom.get("format")
    return custom["name"], custom.get("description"), form.get("grammar") if form else None


def _has_special(messages: Sequence[ChatMessage]) -> bool:
    """Return whether messages hold what only the Responses API, or a custom tool, brings."""
    for message in messages:
        calls = message.get("tool_calls")
        if "item" in message or (calls and any(map(is_special, calls))):
            return True
    return False
