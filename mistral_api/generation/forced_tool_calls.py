"""`required` and named tool choice: grammar out, tool_calls back.

A tool choice that llama.cpp does not keep: ``required`` and named functions it reads as ``auto``.

What it does keep is a JSON schema for the answer, so the model is made to write the call as JSON text, which
``inference.reshaping.calls`` turns into ``tool_calls``. The tools are sent all the same: the model's template
tells it what they are for; with ``tool_choice: "none"`` llama.cpp looks for no calls in the answer itself.

Forced tool calls: the JSON text that the model had to write becomes OpenAI's ``tool_calls``.

With one function to call the text is its arguments. With several it is ``{"name": …, "arguments": …}``, in this
order, whatever white space between them: the schema asked for it (``generation.tool_choice``), and llama.cpp's
grammars keep the order of required properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from mistral_api.system.identifiers import new_tool_call_id
from mistral_api.wire.constraints import DATA, NAMED_SCHEMAS
from mistral_api.wire.payload_types import Chunk

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class ForcedToolChoice:
    """The call that has to be made: to one of these tools."""

    tools: list[dict[str, Any]]
    named: bool

    @property
    def only(self) -> str | None:
        """The one function there is to call."""
        return str(self.tools[0]["function"]["name"]) if len(self.tools) == 1 else None

    @property
    def finish_reason(self) -> str:
        """OpenAI says ``stop`` where the client itself named the function."""
        return "stop" if self.named else "tool_calls"

    def constrain(self, sent: dict[str, Any]) -> dict[str, Any]:
        """The request with the schema of the call in place of the choice."""
        schema = _parameters(self.tools[0]) if self.only else {"anyOf": list(map(_wrapped, range(128), self.tools))}
        form = {"type": "json_schema", "json_schema": {"name": "tool_call", "strict": True, "schema": schema}}
        return sent | {"tool_choice": "none", "response_format": form}


def filter_allowed_tools(payload: dict[str, Any]) -> dict[str, Any]:
    """The request with ``{"type": "allowed_tools", …}`` as what it means: these tools alone, in that mode."""
    choice = payload.get("tool_choice")
    if not isinstance(choice, dict) or choice["type"] != "allowed_tools":
        return payload
    names = {tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]}
    tools = [tool for tool in payload["tools"] if tool["function"]["name"] in names]
    return payload | {"tools": tools, "tool_choice": choice["allowed_tools"]["mode"]}


def forced_tool_choice(payload: dict[str, Any]) -> ForcedToolChoice | None:
    """The call that a request demands, if it does."""
    choice = payload.get("tool_choice")
    if choice == "required":
        return ForcedToolChoice(payload["tools"], named=False)
    if not isinstance(choice, dict):
        return None
    name = choice["function"]["name"]
    return ForcedToolChoice([tool for tool in payload["tools"] if tool["function"]["name"] == name][:1], named=True)


def _parameters(tool: dict[str, Any]) -> dict[str, Any]:
    """The schema of the arguments; a function without parameters has none (OpenAI's ``FunctionObject``)."""
    schema = tool["function"].get("parameters") or _NO_ARGUMENTS
    return schema if "type" in schema or "$ref" in schema else schema | {"type": "object"}


def _wrapped(index: int, tool: dict[str, Any]) -> dict[str, Any]:
    place = f"#/anyOf/{index}/properties/arguments"
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool["function"]["name"]},
            "arguments": _moved(_parameters(tool), place),
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references still point into it where it stands now; its depth is bounded (``wire.load``)."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {keyword: _moved_value(keyword, value, place) for keyword, value in schema.items()}
    if isinstance(schema.get("$ref"), str) and schema["$ref"].startswith("#"):
        moved["$ref"] = place + schema["$ref"][1:]
    return moved


def _moved_value(keyword: str, value: Any, place: str) -> Any:
    """What a keyword of a schema says: data, schemas by their names, or schemas."""
    if keyword in DATA:
        return value
    if keyword in NAMED_SCHEMAS and isinstance(value, dict):
        return {name: _moved(each, place) for name, each in value.items()}
    return _moved(value, place)


_OPENING = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:\\.|[^"\\])*")\s*,\s*"arguments"\s*:\s*')
# What belongs to a whole chunk of the model server, and is told once.
_EXTRAS = ("timings", "prompt_progress")


@dataclass(slots=True)
class _Call:
    """The call of one choice: the text that has been read and not passed on, and the arguments passed on."""

    waiting: str = ""
    arguments: str | None = None


class ToolCallStage:
    """The stage that makes one tool call of each choice's text."""

    def __init__(self, only: str | None, finish_reason: str) -> None:
        """``only``: the one function that there is to call; ``finish_reason``: of an answer that is complete."""
        self._only = only
        self._finish_reason = finish_reason
        self._calls: dict[int, _Call] = {}

    def answer_begins(self) -> None:
        """Choices are numbered through before they come here."""

    def chunk(self, chunk: Chunk) -> list[Chunk]:
        choices = chunk.get("choices")
        if not choices:
            return [chunk]
        pieces = [piece for choice in choices for piece in self._pieces(choice)]
        extras = {name: chunk.pop(name) for name in _EXTRAS if name in chunk}
        chunks = [chunk | {"choices": [piece]} for piece in pieces]
        return [*chunks[:-1], chunks[-1] | extras] if chunks else []

    def end(self) -> list[Chunk]:
        return []

    def _pieces(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        """The choice of a chunk as one or more: what it says beside the call, the call, why it ended."""
        delta, reason = choice.get("delta") or {}, choice.get("finish_reason")
        call = self._calls.setdefault(choice["index"], _Call())
        call.waiting += delta.pop("content", None) or ""
        if "role" in delta:
            delta["content"] = None
        deltas = [delta] if delta else []
        deltas += [{"tool_calls": [{"index": 0} | piece]} for piece in self._read(call, ended=reason is not None)]
        if reason is not None and not deltas:
            deltas = [{}]
        pieces = [{"index": choice["index"], "delta": each, "logprobs": None, "finish_reason": None} for each in deltas]
        if reason is not None:
            pieces[-1]["finish_reason"] = self._finish_reason if reason == "stop" else reason
        return pieces

    def _read(self, call: _Call, *, ended: bool) -> Iterator[dict[str, Any]]:
        """The pieces of a call as OpenAI streams them: id and name, then the arguments as they come."""
        name = self._begun(call) if call.arguments is None else None
        if name is not None:
            call.arguments = ""
            yield {"id": new_tool_call_id(), "type": "function", "function": {"name": name, "arguments": ""}}
        arguments = "" if call.arguments is None else self._certain(call, ended=ended)
        if arguments:
            call.arguments = (call.arguments or "") + arguments
            yield {"function": {"arguments": arguments}}

    def _begun(self, call: _Call) -> str | None:
        """Read as far as the arguments; None while they have not begun."""
        if self._only is not None:
            return self._only if call.waiting.strip() else None
        opening = _OPENING.match(call.waiting)
        if opening is None:
            return None
        call.waiting = call.waiting[opening.end() :]
        return str(orjson.loads(opening[1]))

    def _certain(self, call: _Call, *, ended: bool) -> str:
        """What of the waiting text belongs to the arguments; what may close the object around them goes on waiting,
        and is passed on at the end where they lack it: they may have been cut short."""
        if not call.arguments:
            call.waiting = call.waiting.lstrip()
        text = call.waiting
        if self._only is None:
            text = text.rstrip().removesuffix("}").rstrip()
            if ended and not _is_json((call.arguments or "") + text):
                text = call.waiting
        call.waiting = call.waiting[len(text) :]
        return text


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
