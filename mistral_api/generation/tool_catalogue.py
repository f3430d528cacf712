"""The tools that a client declares, as the functions that llama.cpp knows, and the way back by the function's name.

llama.cpp has functions, named in at most 64 letters, and nothing else. So

- the functions of a namespace become functions of their own, with the namespace in their names;
- a custom tool becomes a function with one string, ``input``. Its grammar becomes the pattern of that string where a
  regular expression can say it. A grammar that calls itself is enforced where the call is forced
  (``generation.forced_tool_calls``), and elsewhere only described to the model;
- ``shell``, ``local_shell``, ``apply_patch`` and the client's ``tool_search`` become functions with the parameters of
  their calls' items (openai/openai-python, src/openai/types/responses, 3.57).

:class:`ToolKindStage` turns the calls that come back into those of the tools that the client declared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import orjson
from marshmallow import ValidationError

from mistral_api.conversations.item_parser import input_parts
from mistral_api.conversations.tool_items import (
    CUSTOM_CALL,
    FUNCTION_CALL,
    TOOL_OF_CALL,
    TOOL_SEARCH_OUTPUT,
    as_function_call,
    call_name,
    call_type,
)
from mistral_api.errors import InvalidRequest
from mistral_api.generation.client_tools import CLIENT_TOOLS
from mistral_api.generation.custom_inputs import InputForm, custom_function
from mistral_api.payload_types import omit, without_nulls
from mistral_api.payload_types.chat import (
    ChatMessage,
    ChatPayload,
    CustomDefinition,
    FunctionDefinition,
    GrammarDefinition,
    NamedTool,
    Tool,
    ToolCall,
    ToolChoice,
)
from mistral_api.payload_types.responses import ItemPart, NamedResponseTool, ResponseTool, ResponseToolChoice
from mistral_api.wire.response_tools import RESPONSE_TOOLS, choices_of, flat_tools, names_tool

LONGEST_NAME = 64
# The fields of a message that only the Responses API knows.
_OWN_MESSAGE_FIELDS = ("item", "author", "recipient")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_CALL_OF_TOOL = {tool: call for call, tool in TOOL_OF_CALL.items()} | {"custom": CUSTOM_CALL}


@dataclass(frozen=True, slots=True)
class CatalogueTool:
    """A tool: the type of the item of its calls, the name and the namespace that the client knows it by.

    ``function`` is what llama.cpp gets. ``grammar`` is that of its input in GBNF, where no pattern says it.
    """

    kind: str
    name: str
    namespace: str
    function: FunctionDefinition
    grammar: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its calls come back as they are."""
        return self.kind == FUNCTION_CALL and not self.namespace and self.function["name"] == self.name


class ToolCatalogue:
    """The tools of one request."""

    def __init__(self, tools: Sequence[CatalogueTool] = ()) -> None:
        """``tools``: no two of them have functions of the same name."""
        self.tools = tools
        self._by_function = {tool.function["name"]: tool for tool in tools}
        self._by_origin = {(tool.kind, tool.namespace, tool.name): tool.function["name"] for tool in tools}

    @property
    def is_plain(self) -> bool:
        """Whether every call comes back as it is."""
        return all(tool.is_plain for tool in self.tools)

    @property
    def functions(self) -> list[Tool]:
        """The tools as llama.cpp gets them."""
        return [{"type": "function", "function": tool.function} for tool in self.tools]

    @property
    def grammars(self) -> dict[str, str]:
        """The grammars of inputs that no pattern says, by the names of the functions."""
        return {tool.function["name"]: tool.grammar for tool in self.tools if tool.grammar is not None}

    def find(self, function_name: str) -> CatalogueTool | None:
        """Return the tool that has become this function."""
        return self._by_function.get(function_name)

    def function_name(self, kind: str, namespace: str, name: str) -> str:
        """Return the name that the model knows a tool by, also one that is not declared any more."""
        known = self._by_origin.get((kind, namespace, name))
        return known or _unique_name(kind, namespace, name, self._by_function)

    def messages_for_model(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """Return messages as the model server takes them: functions are all that is called."""
        return [changed for message in messages for changed in self._for_model(message)]

    def chat_payload(self, payload: ChatPayload) -> ChatPayload:
        """Return a valid chat request in which functions are all that is called."""
        changed = payload | {"messages": self.messages_for_model(payload["messages"])}
        if payload.get("tools"):
            changed["tools"] = self.functions
        choice = payload.get("tool_choice")
        if isinstance(choice, dict):
            changed["tool_choice"] = self._chat_choice(choice)
        return changed

    def _chat_choice(self, choice: ToolChoice) -> ToolChoice:
        if choice["type"] != "allowed_tools":
            return self._named(choice)
        allowed = choice["allowed_tools"]
        tools = [cast("NamedTool", self._named(each)) for each in allowed["tools"]]
        return {"type": "allowed_tools", "allowed_tools": {"mode": allowed["mode"], "tools": tools}}

    def _named(self, choice: NamedTool | ToolChoice) -> ToolChoice:
        if choice["type"] == "custom":
            name = self.function_name(CUSTOM_CALL, "", choice["custom"]["name"])
        else:
            name = self.function_name(FUNCTION_CALL, "", choice["function"]["name"])
        return {"type": "function", "function": {"name": name}}

    def _for_model(self, message: ChatMessage) -> Iterator[ChatMessage]:
        kind = message.get("item")
        if kind == "additional_tools":
            return
        changed = omit(message, _OWN_MESSAGE_FIELDS) if kind else message
        if kind == "agent_message":
            changed["content"] = _with_sender(message)
        elif kind == TOOL_SEARCH_OUTPUT:
            changed["content"] = orjson.dumps({"tools": self._names_of(stored_tools(message))}).decode()
        calls = message.get("tool_calls")
        if calls and any(map(_is_special, calls)):
            changed = changed | {"tool_calls": [self._call_for_model(call) for call in calls]}
        yield changed

    def _names_of(self, tools: Iterable[ResponseTool]) -> list[str]:
        return [self.function_name(*_origin(tool, namespace)) for tool, namespace in flat_tools(tools)]

    def _call_for_model(self, call: ToolCall) -> ToolCall:
        plain = as_function_call(call)
        name = self.function_name(call_type(call), str(call.get("namespace") or ""), call_name(call))
        return plain | {"function": plain["function"] | {"name": name}}

    def allowed(self, names: Iterable[str]) -> ToolCatalogue:
        """Return the catalogue with the tools of these functions alone."""
        kept = set(names)
        return ToolCatalogue([tool for tool in self.tools if tool.function["name"] in kept])


def _is_special(call: ToolCall) -> bool:
    return call.get("type") == "custom" or "item" in call or "namespace" in call


def _with_sender(message: ChatMessage) -> str:
    text = "\n".join(map(_text_of, input_parts(message.get("content"))))
    return f"Message from {message.get('author')} to {message.get('recipient')}:\n{text or '(It is encrypted.)'}"


def _text_of(part: ItemPart) -> str:
    return part.get("text", "")


def stored_tools(message: ChatMessage) -> list[ResponseTool]:
    """Return the tools that a stored message brings, an ``additional_tools`` or a ``tool_search_output``."""
    if message.get("item") not in ("additional_tools", TOOL_SEARCH_OUTPUT):
        return []
    try:
        tools: list[ResponseTool] = orjson.loads(str(message.get("content")))["tools"]
        RESPONSE_TOOLS.check(tools)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValidationError):
        return []  # somebody's message that only looks like one
    return tools


def _unique_name(kind: str, namespace: str, name: str, taken: Mapping[str, object]) -> str:
    """Return a name that llama.cpp takes; a hash keeps those apart that would be the same without it."""
    whole = f"{namespace}__{name}" if namespace else name
    clean = _NOT_IN_NAMES.sub("_", whole)
    if clean == whole and len(clean) <= LONGEST_NAME and clean not in taken:
        return clean
    digest = hashlib.blake2b(f"{kind}\0{namespace}\0{name}".encode(), digest_size=4).hexdigest()
    return f"{clean[: LONGEST_NAME - len(digest) - 1]}_{digest}"


@dataclass(slots=True)
class _Builder:
    """Gathers the tools of a catalogue; a tool that is declared twice counts once."""

    tools: dict[tuple[str, str, str], CatalogueTool] = field(default_factory=dict)
    taken: dict[str, None] = field(default_factory=dict)

    def add(self, kind: str, namespace: str, name: str, function: FunctionDefinition, form: InputForm) -> None:
        origin = (kind, namespace, name)
        if origin in self.tools:
            return
        unique = _unique_name(kind, namespace, name, self.taken)
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
        kind, _, name = _origin(tool, namespace)
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


def _origin(tool: ResponseTool, namespace: str) -> tuple[str, str, str]:
    return _CALL_OF_TOOL.get(tool["type"], FUNCTION_CALL), namespace, tool.get("name") or tool["type"]


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
        catalogue.function_name(*_origin(tool, namespace)): namespace
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
        if "item" in message or (calls and any(map(_is_special, calls))):
            return True
    return False
