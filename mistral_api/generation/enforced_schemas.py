"""The JSON schemas of a request to llama.cpp as what it enforces of them: see ``constraints.schemas``.

A schema stays one for llama.cpp's own converter wherever that can say it. The converter also knows where a reasoning
model's thinking ends and its answer begins. A grammar of ours does not, so with one the model is asked not to think; a
template that begins the thinking by itself gets a grammar in which the answer follows on it.

The plan of a request without a schema does not load this module, which brings the compiler of schemas.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import cast

from mistral_api.constraints.schemas.admission import refusal
from mistral_api.constraints.schemas.calls import CallableTool, ToolRefused, enforce_calls
from mistral_api.constraints.schemas.enforced import Form, enforce_schema
from mistral_api.constraints.schemas.errors import SchemaRefused
from mistral_api.constraints.schemas.remembered import Enforced
from mistral_api.errors import InvalidRequest, ModelServerFailed, ModelServerRefused
from mistral_api.generation.forced_tool_calls import ForcedToolChoice, parameters_of
from mistral_api.payload_types import JsonObject, omit, pick
from mistral_api.payload_types.chat import ChatPayload, Tool
from mistral_api.wire.tools import forces_call

# Sends a request to a path of the model server, and returns the JSON object it is answered with.
Query = Callable[[str, Mapping[str, object]], JsonObject]

_SCHEMAS_OF_ANSWERS = ("response_format", "json_schema")
_SCHEMA_OF_CALL = ("response_format", "json_schema", "schema")
_TEMPLATE_FIELDS = ("messages", "tools", "chat_template_kwargs", "add_generation_prompt")
# The name of the root of a grammar; literals and classes as a group.
_ROOT = re.compile(r'("(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\])|(?<![\w-])root(?![\w-])')
# What templates begin a model's thinking with.
_OPEN_THINKING = re.compile(r"<(think|thinking|thought|reasoning|seed:think)>\s*\Z")


def enforce_schemas(request: ChatPayload, query: Query, *, chat: bool) -> ChatPayload:
    """Return a request with its schemas as what llama.cpp enforces of them.

    The call that a tool choice forces is seen to by :func:`enforce_call`. Raises InvalidRequest for a schema that
    cannot be enforced.
    """
    if not chat:
        return enforce_completion(request)
    if forces_call(request.get("tool_choice")):
        return request
    return enforce_answer(enforce_tools(request), query)


def enforce_tools(request: ChatPayload) -> ChatPayload:
    """Return the request with the parameters of its tools as what llama.cpp enforces of them."""
    tools = request.get("tools")
    if not tools or request.get("tool_choice") == "none":
        return request
    return request | {"tools": [_enforced_tool(tool, _path_of_tool(index)) for index, tool in enumerate(tools)]}


def _path_of_tool(index: int) -> str:
    return f"tools[{index}].function.parameters"


def _enforced(schema: JsonObject, form: Form, path: str) -> Enforced:
    """Return what is enforced of a schema at a path of the request. Raises InvalidRequest.

    Schemas of the request's body have been refused before (``constraints.gate``), by the path that the client knows.
    Those of stored tools may come here first.
    """
    try:
        return enforce_schema(schema, form)
    except SchemaRefused as refused:
        raise refusal(path, refused) from refused


def _enforced_tool(tool: Tool, path: str) -> Tool:
    function = tool["function"]
    schema = function.get("parameters")
    if not schema:
        return tool
    form = Form.STRICT_TOOL if function.get("strict") else Form.TOOL
    enforced = _enforced(schema, form, path).schema
    if enforced is schema or enforced is None:
        return tool
    return tool | {"function": function | {"parameters": enforced}}


def enforce_completion(request: ChatPayload) -> ChatPayload:
    """Return a request without a chat with a grammar in the place of its schema."""
    schema = request.get("json_schema")
    if not isinstance(schema, dict):
        return request
    changed = omit(request, ("json_schema",))
    changed["grammar"] = _enforced(schema, Form.TEXT, "json_schema").grammar or ""
    return changed


def enforce_answer(request: ChatPayload, query: Query) -> ChatPayload:
    """Return a chat request with the schema of its answer as what llama.cpp enforces exactly."""
    for path in (_SCHEMA_OF_CALL, ("response_format", "schema"), ("json_schema",)):
        schema = _value_at(request, path)
        if isinstance(schema, dict):
            return _with_answer(request, path, _enforced(schema, Form.ANSWER, ".".join(path)), query)
    return request


def enforce_call(request: ChatPayload, forced: ForcedToolChoice, query: Query) -> ChatPayload:
    """Return a request whose answer is a forced tool call. Raises InvalidRequest for a strict tool, as above."""
    if forced.grammar is not None:
        return _with_grammar(request, forced.grammar, query)
    enforced = _enforced_call(forced)
    return _with_answer(forced.constrain(request), _SCHEMA_OF_CALL, enforced, query)


def _enforced_call(forced: ForcedToolChoice) -> Enforced:
    if forced.only_function is not None:
        (tool,) = forced.tools
        form = Form.ANSWER if tool["function"].get("strict") else Form.TOOL
        return _enforced(parameters_of(tool), form, _path_of_tool(0))
    tools = [
        CallableTool(tool["function"]["name"], parameters_of(tool), tool["function"].get("strict") is True)
        for tool in forced.tools
    ]
    try:
        return enforce_calls(tools)
    except ToolRefused as refused:
        raise refusal(_path_of_tool(refused.index), refused) from refused
    except SchemaRefused as refused:
        raise refusal("tools", refused) from refused


def _value_at(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _with_answer(request: ChatPayload, path: tuple[str, ...], enforced: Enforced, query: Query) -> ChatPayload:
    if enforced.grammar is not None:
        return _with_grammar(request, enforced.grammar, query)
    return cast(ChatPayload, _replaced(cast(JsonObject, request), path, enforced.schema))


def _replaced(value: JsonObject, path: tuple[str, ...], new: object) -> JsonObject:
    """Return a copy of nested objects with another value at a path."""
    name, *rest = path
    return value | {name: _replaced(value[name], tuple(rest), new) if rest else new}


def _with_grammar(request: ChatPayload, grammar: str, query: Query) -> ChatPayload:
    """Return a chat request with a grammar in the place of its schema; llama.cpp takes no grammar beside tools."""
    if request.get("grammar"):  # of the client, which llama.cpp would refuse beside a schema
        text = "'grammar' and a JSON schema cannot both be given."
        raise InvalidRequest(text, code="mutually_exclusive_parameters", param="grammar")
    kwargs = {"enable_thinking": False} | (request.get("chat_template_kwargs") or {})
    changed: ChatPayload = omit(request, _SCHEMAS_OF_ANSWERS)
    changed["chat_template_kwargs"] = kwargs
    if changed.get("tools"):
        changed["tool_choice"] = "none"
    begun = _begun_thinking(changed, query)
    changed["grammar"] = _after_thinking(grammar, begun) if begun else grammar
    return changed


def _begun_thinking(request: ChatPayload, query: Query) -> str | None:
    """Return the tag with which the template begins the model's thinking, None where it does not."""
    with contextlib.suppress(ModelServerRefused, ModelServerFailed):  # then the request itself fails as well
        prompt = query("/apply-template", pick(request, _TEMPLATE_FIELDS)).get("prompt")
        found = _OPEN_THINKING.search(prompt) if isinstance(prompt, str) else None
        return found[1] if found else None
    return None


def _after_thinking(grammar: str, tag: str) -> str:
    """Return a grammar in which the answer follows on a text that a closing tag ends."""
    answer = _ROOT.sub(lambda found: found[1] or "the-answer", grammar)
    thinking = 'the-thinking ::= ([^<] | "<" [^/<])*'
    return f'root ::= the-thinking "</{tag}>" [ \\n]{{0,3}} the-answer\n{thinking}\n{answer}'
