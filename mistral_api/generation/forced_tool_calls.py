"""Forced tool calls: a tool choice that llama.cpp does not keep becomes a JSON schema, and its text a tool call.

llama.cpp reads ``required`` and named functions as ``auto``. What it does keep is a JSON schema for the answer. So the
model is made to write the call as JSON text (:class:`ForcedToolChoice`), which :class:`ToolCallStage` turns into
``tool_calls``. The tools are sent all the same: the model's template tells the model what they are for. With
``tool_choice: "none"`` llama.cpp looks for no calls in the answer itself.

A custom tool's input may have to fit a grammar that no JSON schema says. Where that is the one tool to call, the text
is the input itself, within that grammar (:class:`InputStage`).

With one function to call, the text is its arguments. With several it is ``{"name": …, "arguments": …}`` in this order,
with any white space between: the schema asks for it, and llama.cpp's grammars keep the order of required properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson

from mistral_api.conversations.tool_items import INPUT_OPENING, is_json
from mistral_api.generation.stages import ChunkStage
from mistral_api.payload_types import JsonObject, omit, pick
from mistral_api.payload_types.chat import ChatPayload, ResponseFormat, Tool
from mistral_api.payload_types.completions import Chunk, ChunkChoice, Delta, ToolCallDelta
from mistral_api.system.identifiers import new_tool_call_id

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class ForcedToolChoice:
    """The demand to call one of these tools. ``named``: the client named the function.

    ``grammar``: what the input of the only one must fit, in GBNF.
    """

    tools: list[Tool]
    named: bool
    grammar: str | None = None

    @property
    def only_function(self) -> str | None:
        """The name of the function, where there is but one to call."""
        return str(self.tools[0]["function"]["name"]) if len(self.tools) == 1 else None

    @property
    def finish_reason(self) -> str:
        """OpenAI says ``stop`` where the client itself named the function."""
        return "stop" if self.named else "tool_calls"

    def constrain(self, payload: ChatPayload) -> ChatPayload:
        """Return the request with a JSON schema in place of the tool choice: what it is, enforced_schemas says."""
        form: ResponseFormat = {
            "type": "json_schema",
            "json_schema": {"name": "tool_call", "strict": True, "schema": {}},
        }
        return payload | {"tool_choice": "none", "response_format": form}

    def stage(self) -> ToolCallStage:
        """Return the stage that makes the call of the text."""
        if self.grammar is not None:
            return InputStage(self.only_function, self.finish_reason)
        return ToolCallStage(self.only_function, self.finish_reason)


def filter_allowed_tools(payload: ChatPayload) -> ChatPayload:
    """Return the request with ``{"type": "allowed_tools", …}`` as what it means: these tools alone, in that mode."""
    choice = payload.get("tool_choice")
    if not isinstance(choice, dict) or choice["type"] != "allowed_tools":
        return payload
    names = {tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]}
    tools = [tool for tool in payload["tools"] if tool["function"]["name"] in names]
    return payload | {"tools": tools, "tool_choice": choice["allowed_tools"]["mode"]}


def forced_tool_choice(payload: ChatPayload, grammars: Mapping[str, str] | None = None) -> ForcedToolChoice | None:
    """Return the call that a request demands, None where it demands none.

    ``grammars``: those of the inputs of custom tools that no schema says, by the names of their functions.
    """
    choice = payload.get("tool_choice")
    tools, named = payload.get("tools") or [], isinstance(choice, dict)
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["function"]["name"] == choice["function"]["name"]][:1]
    elif choice != "required":
        return None
    name = tools[0]["function"]["name"] if len(tools) == 1 else ""
    return ForcedToolChoice(tools, named, (grammars or {}).get(name))


def parameters_of(tool: Tool) -> JsonObject:
    """Return the schema of the arguments; a function without parameters takes none (OpenAI's ``FunctionObject``)."""
    schema: JsonObject = tool["function"].get("parameters") or _NO_ARGUMENTS
    return schema if "type" in schema or "$ref" in schema else schema | {"type": "object"}


_OPENING = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:\\.|[^"\\])*")\s*,\s*"arguments"\s*:\s*')
# What belongs to a whole chunk of the model server: it goes out once, with the last chunk made of it.
_CHUNK_EXTRAS = ("timings", "prompt_progress")


@dataclass(slots=True)
class _Call:
    """The call of one choice: text that has been read but not sent, and the arguments sent (None: not begun).

    ``reasoned``: reasoning came before it.
    """

    unsent: str = ""
    arguments: str | None = None
    reasoned: bool = False


class ToolCallStage(ChunkStage):
    """Makes one tool call of each choice's text."""

    def __init__(self, only_function: str | None, finish_reason: str) -> None:
        """``only_function``: the one function that there is to call; ``finish_reason``: of a complete answer."""
        self._only_function = only_function
        self._finish_reason = finish_reason
        self._calls: dict[int, _Call] = {}

    def apply(self, chunk: Chunk) -> list[Chunk]:
        choices = chunk.get("choices")
        if not choices:
            return [chunk]
        split = [piece for choice in choices for piece in self._split(choice)]
        extras, rest = pick(chunk, _CHUNK_EXTRAS), omit(chunk, _CHUNK_EXTRAS)
        chunks = [rest | {"choices": [choice]} for choice in split]
        return [*chunks[:-1], chunks[-1] | extras] if chunks else []

    def _split(self, choice: ChunkChoice) -> list[ChunkChoice]:
        """Return the choice of a chunk as one or more: other fields of its delta, the call, why it ended."""
        delta, reason = choice.get("delta") or {}, choice.get("finish_reason")
        call = self._calls.setdefault(choice["index"], _Call())
        call.unsent += delta.pop("content", None) or ""
        call.reasoned = call.reasoned or bool(delta.get("reasoning_content"))
        if "role" in delta:
            delta["content"] = None
        deltas: list[Delta] = [delta] if delta else []
        deltas += [{"tool_calls": [{"index": 0} | piece]} for piece in self._call_deltas(call, reason)]
        if reason is not None and not deltas:
            deltas = [{}]
        split: list[ChunkChoice] = [
            {"index": choice["index"], "delta": each, "logprobs": None, "finish_reason": None} for each in deltas
        ]
        if reason is not None:
            split[-1]["finish_reason"] = self._finish_reason if reason == "stop" else reason
        return split

    def _call_deltas(self, call: _Call, reason: str | None) -> Iterator[ToolCallDelta]:
        """Yield the deltas of a call as OpenAI streams them: id and name, then the arguments as they come.

        ``reason``: why the answer has ended. One that was cut off before its first word is the call as well, where
        there is but one function to call; not one that was cut off in its reasoning.
        """
        last, name = reason is not None, self._read_name(call) if call.arguments is None else None
        if reason == "length" and call.arguments is None and not call.reasoned:
            name = name or self._only_function
        if name is not None:
            call.arguments = ""
            yield {"id": new_tool_call_id(), "type": "function", "function": {"name": name, "arguments": ""}}
        arguments = "" if call.arguments is None else self._read_arguments(call, last=last)
        if arguments:
            call.arguments = (call.arguments or "") + arguments
            yield {"function": {"arguments": arguments}}

    def _read_name(self, call: _Call) -> str | None:
        """Read as far as the arguments. Return the function's name, None while the arguments have not begun."""
        if self._only_function is not None:
            return self._only_function if call.unsent.strip() else None
        opening = _OPENING.match(call.unsent)
        if opening is None:
            return None
        call.unsent = call.unsent[opening.end() :]
        return str(orjson.loads(opening[1]))

    def _read_arguments(self, call: _Call, *, last: bool) -> str:
        """Return the unsent text that surely belongs to the arguments.

        A closing brace may close the object around the arguments, so it is held back. At the end it is sent where the
        arguments lack it: the answer may have been cut short.
        """
        if not call.arguments:
            call.unsent = call.unsent.lstrip()
        text = call.unsent
        if self._only_function is None:
            text = text.rstrip().removesuffix("}").rstrip()
            if last and not is_json((call.arguments or "") + text):
                text = call.unsent
        call.unsent = call.unsent[len(text) :]
        return text


class InputStage(ToolCallStage):
    """Makes the call of a custom tool of each choice's text, which is the tool's input.

    Its arguments are written as those of any other: ``{"input": "…"}``.
    """

    def _read_arguments(self, call: _Call, *, last: bool) -> str:
        text = orjson.dumps(call.unsent).decode()[1:-1]
        call.unsent = ""
        return text if call.arguments else INPUT_OPENING + text
