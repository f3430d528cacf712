"""The output item that is being generated, and the events that tell of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from mistral_api.schemas.payload_types import Item

Event = dict[str, Any]


class ContentPartStream(StrEnum):
    """The kinds of parts; each is also the name of its events."""

    TEXT = "output_text"
    REFUSAL = "refusal"
    REASONING = "reasoning_text"

    @property
    def field(self) -> str:
        """The field of a part that holds its words."""
        return "refusal" if self is ContentPartStream.REFUSAL else "text"

    def holding(self, words: str) -> dict[str, Any]:
        """A part of this kind."""
        return {"type": str(self), self.field: words} | (
            {"annotations": [], "logprobs": []} if self is ContentPartStream.TEXT else {}
        )


class OutputItemStream:
    """One item, from its announcement to its end; it may go on after that, and end again."""

    def __init__(self, item_id: str, output_index: int) -> None:
        self.id = item_id
        self._output_index = output_index
        self._where = {"item_id": item_id, "output_index": output_index}
        self._parts: list[ContentPartStream] = []

    def added(self, item: Item) -> list[Event]:
        """The item is announced, with nothing in it yet."""
        empty: Item = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        announced = item | empty | {"status": "in_progress"}
        return [{"type": "response.output_item.added", "output_index": self._output_index, "item": announced}]

    def part_added(self, part: ContentPartStream) -> list[Event]:
        """A part is announced, unless it has been."""
        if part in self._parts:
            return []
        self._parts.append(part)
        return [{"type": "response.content_part.added", **self._within(part), "part": part.holding("")}]

    def text_delta(
        self, part: ContentPartStream, text: str, logprobs: list[dict[str, Any]] | None = None
    ) -> list[Event]:
        """Words of a part. ``logprobs``: of their tokens, in published form."""
        announced = self.part_added(part)
        delta = {"type": f"response.{part}.delta", **self._within(part), "delta": text}
        return [*announced, delta | ({"logprobs": logprobs or []} if part is ContentPartStream.TEXT else {})]

    def arguments_delta(self, arguments: str | None) -> list[Event]:
        """A piece of a function's arguments, if there is one."""
        delta = {"type": "response.function_call_arguments.delta", **self._where, "delta": arguments}
        return [delta] if arguments else []

    def closed(self, item: Item) -> list[Event]:
        """The item has ended; ``item`` is all of it."""
        events: list[Event] = []
        if item["type"] == "function_call":
            done = {"name": item["name"], "arguments": item["arguments"]}
            events.append({"type": "response.function_call_arguments.done", **self._where, **done})
        for part in self._parts:
            events += self._part_done(part, next(each for each in item["content"] if each["type"] == part))
        return [*events, {"type": "response.output_item.done", "output_index": self._output_index, "item": item}]

    def _part_done(self, part: ContentPartStream, content: dict[str, Any]) -> list[Event]:
        where, words = self._within(part), {part.field: content[part.field]}
        logprobs = {"logprobs": content["logprobs"]} if part is ContentPartStream.TEXT else {}
        return [
            {"type": f"response.{part}.done", **where, **words, **logprobs},
            {"type": "response.content_part.done", **where, "part": content},
        ]

    def _within(self, part: ContentPartStream) -> dict[str, Any]:
        return self._where | {"content_index": self._parts.index(part)}
