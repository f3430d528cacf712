"""Tools of the Responses API, and the choice among them (OpenAI's ``Tool`` and ``ToolChoiceParam``).

Their forms are those of openai/openai-python, src/openai/types/responses/tool_param.py (3.57). Tools that only OpenAI
can run are valid: whether a request can be answered without them is a question of ``tool_choice``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.responses import NamedResponseTool, ResponseTool, ResponseToolChoice
from mistral_api.wire.constraints import JSON_SCHEMA
from mistral_api.wire.container_shapes import Array, Object, TaggedUnion, nullable, required, required_or_checked_as
from mistral_api.wire.field_errors import quote_value, quote_words, refuse, refuse_word
from mistral_api.wire.shapes import AnyOf, Boolean, Shape, StringEnum, Text
from mistral_api.wire.tools import GRAMMAR_FIELDS, MOST_TOOLS, TOOL_CHOICES, allowed_tools, forces_call, name_of

# So many functions can be declared in all, those in namespaces counted one by one.
MOST_FUNCTIONS = 512
# What only OpenAI can run.
HOSTED = (
    "web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11", "file_search",
    "image_generation", "code_interpreter", "computer", "computer_use", "computer_use_preview", "mcp",
    "programmatic_tool_calling",
)  # fmt: skip
# Tools that have no name but their type.
_UNNAMED = ("shell", "local_shell", "apply_patch", "tool_search")
# With that of a namespace before it, it may be longer than llama.cpp takes: it gets a shorter one on the way.
_TOOL_NAME = name_of("a tool")
_FORMAT = TaggedUnion("type", {"text": Object(), "grammar": Object(*GRAMMAR_FIELDS)})
_FUNCTION = Object(
    required(name=_TOOL_NAME),
    nullable(
        description=Text(),
        parameters=JSON_SCHEMA.with_keywords(description="A JSON schema of the arguments."),
        strict=Boolean(),
    ),
)
_CUSTOM = Object(required(name=_TOOL_NAME), nullable(description=Text(), format=_FORMAT))
_NAMESPACED: dict[str, Object] = {"function": _FUNCTION, "custom": _CUSTOM}
_NAMESPACE = Object(
    required(name=_TOOL_NAME, tools=Array(TaggedUnion("type", _NAMESPACED), 0, MOST_TOOLS)),
    nullable(description=Text()),
)
_TOOL_SEARCH = Object(nullable(execution=StringEnum("server", "client"), description=Text(), parameters=JSON_SCHEMA))
_SHELL = Object(nullable(environment=Object(required(type=Text()))))
_OTHER = Object()
_KINDS = {
    **_NAMESPACED,
    "namespace": _NAMESPACE,
    "tool_search": _TOOL_SEARCH,
    "shell": _SHELL,
    **dict.fromkeys(("local_shell", "apply_patch", *HOSTED), _OTHER),
}


def _refuse_kind(kind: str) -> NoReturn:
    refuse_word(kind, _KINDS)


def _check_number(tools: list[ResponseTool]) -> None:
    number = sum(1 for _ in flat_tools(tools))
    if number > MOST_FUNCTIONS:
        text = f"Invalid '{{param}}': too many tools. Expected at most {MOST_FUNCTIONS}, but got {number}."
        refuse("array_above_max_length", text)


_TOOL = TaggedUnion("type", _KINDS, required(type=StringEnum(*_KINDS, refuse_other=_refuse_kind)))
RESPONSE_TOOLS = Array(_TOOL, 0, MOST_TOOLS).refined(_check_number)


def _refuse_hosted_choice(kind: str) -> NoReturn:
    if kind not in HOSTED:
        refuse_word(kind, (*_CHOICES, "allowed_tools"))
    text = f"Unsupported value for '{{param}}': '{quote_value(kind)}'. Only OpenAI can run this tool."
    refuse("unsupported_value", text)


_NAMED = Object(required(name=_TOOL_NAME), nullable(namespace=Text()))
_CHOICES = {"function": _NAMED, "custom": _NAMED, **dict.fromkeys(_UNNAMED, _OTHER)}
_ALLOWED = {**_CHOICES, "namespace": _NAMED, **dict.fromkeys(HOSTED, _OTHER)}
_ALLOWED_TOOL = TaggedUnion(
    "type", _ALLOWED, required_or_checked_as(None, type=StringEnum(*_ALLOWED, refuse_other=_refuse_hosted_choice))
)
# A word, one tool, or ``{"type": "allowed_tools", "mode": …, "tools": […]}``.
RESPONSE_TOOL_CHOICE: Shape = AnyOf(
    StringEnum(*TOOL_CHOICES),
    TaggedUnion(
        "type",
        {**_CHOICES, "allowed_tools": Object(allowed_tools(_ALLOWED_TOOL))},
        required(type=StringEnum(*_CHOICES, "allowed_tools", refuse_other=_refuse_hosted_choice)),
    ),
    expected=f"one of {quote_words(TOOL_CHOICES)} or an object",
)


def is_hosted(tool: Mapping[str, Any]) -> bool:
    """Return whether only OpenAI can run a tool: a shell in its containers, and its own search for tools, too."""
    kind, environment = tool["type"], tool.get("environment")
    if kind == "shell":
        return isinstance(environment, dict) and environment.get("type") != "local"
    return kind in HOSTED or (kind == "tool_search" and tool.get("execution") != "client")


def flat_tools(tools: Iterable[ResponseTool]) -> Iterator[tuple[ResponseTool, str]]:
    """Yield the tools that can be called, each with its namespace, which is empty for most."""
    for tool in tools:
        if tool["type"] == "namespace":
            yield from ((each, tool["name"]) for each in tool["tools"])
        elif not is_hosted(tool):
            yield tool, ""


def tools_in_items(items: object) -> list[ResponseTool]:
    """Return the tools that items of a valid input bring."""
    found: list[ResponseTool] = []
    for item in items if isinstance(items, list) else ():
        if item.get("type") in ("tool_search_output", "additional_tools"):
            found += item["tools"]
    return found


def names_tool(choice: NamedResponseTool | ResponseToolChoice, tool: ResponseTool, namespace: str) -> bool:
    """Return whether one tool of a valid choice is this one. A tool may be named without its namespace."""
    if choice["type"] == "namespace":
        return namespace == choice["name"]
    wanted = choice.get("namespace") or namespace
    return (choice["type"], choice.get("name"), wanted) == (tool["type"], tool.get("name"), namespace)


def choices_of(choice: str | ResponseToolChoice | None) -> Sequence[NamedResponseTool | ResponseToolChoice]:
    """Return the tools that a valid choice names."""
    if not isinstance(choice, dict):
        return ()
    return choice["tools"] if choice["type"] == "allowed_tools" else (choice,)


def _refuse_uncallable(declared: Sequence[ResponseTool]) -> NoReturn:
    """Refuse tools of which none can be called where a call is demanded."""
    for index, tool in enumerate(declared):
        if is_hosted(tool):
            text = f"'{tool['type']}'. Only OpenAI can run this tool, and a call is demanded."
            refuse("unsupported_value", f"Unsupported value for '{{param}}': {text}", f"[{index}].type", field="tools")
    refuse("invalid_value", "Invalid '{param}': no namespace has a tool, and a call is demanded.", field="tools")


def check_choice(data: JsonObject) -> None:
    """Refuse a tool choice that cannot be kept with the tools of a request, whose fields are valid."""
    choice, declared = data.get("tool_choice"), data.get("tools") or []
    callable_tools = list(flat_tools([*declared, *tools_in_items(data.get("input"))]))
    # Tools that earlier responses have loaded are not known here.
    continues = data.get("previous_response_id") is not None or data.get("conversation") is not None
    named = [each for each in choices_of(choice) if each["type"] not in HOSTED]
    several = isinstance(choice, dict) and "tools" in choice
    for index, each in () if continues else enumerate(choices_of(choice)):
        if each["type"] not in HOSTED and not any(names_tool(each, *tool) for tool in callable_tools):
            path = f".tools[{index}]" if several else ""
            refuse("invalid_value", "'{param}' names a function that is not in 'tools'.", path, field="tool_choice")
    if not forces_call(choice) or continues:
        return
    if choice == "required" and not declared and not callable_tools:
        refuse("invalid_value", "'{param}' is only allowed when 'tools' are given.", field="tool_choice")
    if not callable_tools:
        _refuse_uncallable(declared)
    if isinstance(choice, dict) and not named:
        text = "Unsupported value for '{param}': only OpenAI can run these tools, and a call is demanded."
        refuse("unsupported_value", text, field="tool_choice")
