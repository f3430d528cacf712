"""The tools that a client declares, as the functions that llama.cpp knows, and the way back by the function's name.

llama.cpp has functions, and nothing else. So

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
from dataclasses import dataclass
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
from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import (
    ChatMessage,
    ChatPayload,
    FunctionDefinition,
    NamedTool,
    Tool,
    ToolCall,
    ToolChoice,
)
from mistral_api.payload_types.responses import ItemPart, ResponseTool
from mistral_api.wire.response_tools import RESPONSE_TOOLS, flat_tools
from mistral_api.wire.tools import NAME_LENGTH

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
        return known or unique_name(kind, namespace, name, self._by_function)

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
        if calls and any(map(is_special, calls)):
            changed = changed | {"tool_calls": [self._call_for_model(call) for call in calls]}
        yield changed

    def _names_of(self, tools: Iterable[ResponseTool]) -> list[str]:
        return [self.function_name(*tool_origin(tool, namespace)) for tool, namespace in flat_tools(tools)]

    def _call_for_model(self, call: ToolCall) -> ToolCall:
        plain = as_function_call(call)
        name = self.function_name(call_type(call), str(call.get("namespace") or ""), call_name(call))
        return plain | {"function": plain["function"] | {"name": name}}

    def allowed(self, names: Iterable[str]) -> ToolCatalogue:
        """Return the catalogue with the tools of these functions alone."""
        kept = set(names)
        return ToolCatalogue([tool for tool in self.tools if tool.function["name"] in kept])


def is_special(call: ToolCall) -> bool:
    """Return whether a stored call is none that models know: they know functions, none of a namespace."""
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


def unique_name(kind: str, namespace: str, name: str, taken: Mapping[str, object]) -> str:
    """Return a name that llama.cpp takes; a hash keeps those apart that would be the same without it."""
    whole = f"{namespace}__{name}" if namespace else name
    clean = _NOT_IN_NAMES.sub("_", whole)
    if clean == whole and len(clean) <= NAME_LENGTH and clean not in taken:
        return clean
    digest = hashlib.blake2b(f"{kind}\0{namespace}\0{name}".encode(), digest_size=4).hexdigest()
    return f"{clean[: NAME_LENGTH - len(digest) - 1]}_{digest}"


def tool_origin(tool: ResponseTool, namespace: str) -> tuple[str, str, str]:
    """Return what the client knows a tool by: the type of the item of its calls, its namespace and its name."""
    return _CALL_OF_TOOL.get(tool["type"], FUNCTION_CALL), namespace, tool.get("name") or tool["type"]
