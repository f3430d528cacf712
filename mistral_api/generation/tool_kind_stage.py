"""The calls of functions that come from llama.cpp become those of the tools that the client declared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from mistral_api.conversations.tool_items import CUSTOM_CALL, INPUT_OPENING, TOOL_OF_CALL
from mistral_api.generation.stages import ChunkStage
from mistral_api.generation.tool_catalogue import CatalogueTool, ToolCatalogue
from mistral_api.payload_types import omit
from mistral_api.payload_types.completions import Chunk, ChunkChoice, Delta, ToolCallDelta

_BLANKS = re.compile(r"\s+")
# What of a JSON string can be decoded now: an escape may still lack digits, or the second half of a surrogate pair.
_DECODABLE = re.compile(
    r"""(?: [^"\\] | \\[^u] | \\u(?![dD][89abAB])[0-9a-fA-F]{4}
        | \\u[dD][89abAB][0-9a-fA-F]{2} (?: \\u[0-9a-fA-F]{4} | (?=[^\\]) | (?=\\[^u]) ) )*""",
    re.DOTALL | re.VERBOSE,
)
_SURROGATES = re.compile("[\ud800-\udfff]")


class InputReader:
    """Reads the text out of ``{"input": "…"}`` that arrives in pieces.

    Arguments that are no such object, since nothing made the model keep to it, are the text themselves.
    """

    def __init__(self) -> None:
        self._unread = ""
        self._state = "opening"

    def feed(self, piece: str) -> str:
        """Take a piece of the arguments. Return what it adds to the input."""
        if self._state == "ended":
            return ""
        self._unread += piece
        if self._state == "opening" and not self._open():
            return ""
        if self._state == "bare":
            text, self._unread = self._unread, ""
            return text
        return self._read_string()

    def _open(self) -> bool:
        """Read as far as the string. Return whether what follows can be read."""
        compact = _BLANKS.sub("", self._unread)
        if not compact.startswith(INPUT_OPENING):
            self._state = "opening" if INPUT_OPENING.startswith(compact) else "bare"
            return self._state == "bare"
        self._state = "string"
        self._unread = self._unread[self._unread.index(":") :].partition('"')[2]
        return True

    def _read_string(self) -> str:
        match = _DECODABLE.match(self._unread)
        text = match[0] if match else ""
        self._unread = self._unread[len(text) :]
        if self._unread.startswith('"'):
            self._state, self._unread = "ended", ""
        return _decoded(text)


def _decoded(text: str) -> str:
    """Return the text that stands in a JSON string; half a surrogate pair is no text, and a wrong escape is itself."""
    try:
        return _SURROGATES.sub("\ufffd", str(json.loads(f'"{text}"', strict=False)))
    except json.JSONDecodeError:
        return text


class ToolKindStage(ChunkStage):
    """Gives each call the name and the form of the tool that it is of."""

    def __init__(self, catalogue: ToolCatalogue) -> None:
        self._catalogue = catalogue
        self._inputs: dict[tuple[int, int], InputReader] = {}

    def apply(self, chunk: Chunk) -> list[Chunk]:
        choices = chunk.get("choices") or []
        if not any((choice.get("delta") or {}).get("tool_calls") for choice in choices):
            return [chunk]
        kept = [choice for choice in choices if self._change(choice)]
        return [chunk | {"choices": kept}] if kept else []

    def _change(self, choice: ChunkChoice) -> bool:
        """Change the calls of a choice. Return whether anything is left of it."""
        delta: Delta = choice.get("delta") or {}
        calls = [changed for call in delta.pop("tool_calls", []) for changed in self._changed(choice, call)]
        if calls:
            delta["tool_calls"] = calls
        return bool(delta) or choice.get("finish_reason") is not None

    def _changed(self, choice: ChunkChoice, call: ToolCallDelta) -> Iterator[ToolCallDelta]:
        function, key = call.get("function") or {}, (int(choice.get("index") or 0), int(call.get("index") or 0))
        name = function.get("name")
        tool = self._catalogue.find(name) if name else None
        if tool is not None and tool.kind == CUSTOM_CALL:
            self._inputs[key] = InputReader()
        reader = self._inputs.get(key)
        if reader is not None:
            yield from _custom_delta(call, tool, reader.feed(function.get("arguments") or ""))
        elif tool is None or tool.is_plain:
            yield call
        else:
            yield _named_delta(call, tool)


def _custom_delta(call: ToolCallDelta, tool: CatalogueTool | None, text: str) -> Iterator[ToolCallDelta]:
    others = omit(call, ("function",))
    if tool is not None:
        yield others | {"type": "custom", "custom": {"name": tool.name, "input": text}} | _namespace(tool)
    elif text:
        yield others | {"custom": {"input": text}}


def _named_delta(call: ToolCallDelta, tool: CatalogueTool) -> ToolCallDelta:
    item: ToolCallDelta = {"item": tool.kind} if tool.kind in TOOL_OF_CALL else {}
    return call | {"function": call["function"] | {"name": tool.name}} | item | _namespace(tool)


def _namespace(tool: CatalogueTool) -> ToolCallDelta:
    return {"namespace": tool.namespace} if tool.namespace else {}
