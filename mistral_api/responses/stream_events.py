"""The typed events of a streamed response.

The output item that is being generated, and the events that tell of it.

The typed events of a streamed response, made from the chunks of a chat completion.

The order is OpenAI's: reasoning, message and function calls one after the other, each item closed when the next
begins. A model that comes back to an item it had left (some think again between their calls) makes that item go
on and be closed again, with all that it holds by then.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson

from mistral_api.conversations.item_renderer import ItemIds
from mistral_api.errors import ApiError
from mistral_api.responses.response_object import (
    Response,
    ResponseOutput,
    cancelled,
    complete_response,
    failed,
    in_progress,
    output_items,
    published_logprobs,
)
from mistral_api.upstream.transcript import ChoiceTranscript, Transcript
from mistral_api.wire.payload_types import Item

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


_TERMINAL = {"completed": "response.completed", "incomplete": "response.incomplete"}


def encoded(event: Event) -> bytes:
    """An event as server-sent events have it."""
    kind: str = event["type"]
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


class ResponseEvents:
    """One response while it streams; each method answers the events that are due, numbered from 0.

    ``response`` is the Response object as it is now, after :meth:`complete`, :meth:`fail` or :meth:`cancel` the
    final one. Not safe to use from several threads at once.
    """

    def __init__(self, opened: Response, answer_id: UUID) -> None:
        """``opened``: from :func:`mistral_api.responses.body.opened`. ``answer_id``: of the assistant's message."""
        self.response = opened
        self.transcript = Transcript()
        # Those of the answer's text; llama.cpp also gives those of its reasoning.
        self.logprobs: list[dict[str, Any]] = []
        self._answer_id = answer_id
        self._ids = ItemIds(answer_id)
        self._numbered = 0
        # In the order of their announcement, which is that of their indexes.
        self._opened: dict[str, OutputItemStream] = {}
        self._current: OutputItemStream | None = None

    def begin(self) -> list[Event]:
        """The response exists; unless it is queued, its generation has begun."""
        created = self._about_response("response.created")
        follows = "response.queued" if self.response["status"] == "queued" else "response.in_progress"
        return [created, self._about_response(follows)]

    def start(self) -> list[Event]:
        """The generation of a queued response has begun."""
        self.response = in_progress(self.response)
        return [self._about_response("response.in_progress")]

    def chunk(self, chunk: dict[str, Any]) -> list[Event]:
        """Take a chunk of the chat completion, decoded."""
        self.transcript.add_chunk(chunk)
        events: list[Event] = []
        for choice in chunk.get("choices") or ():
            events += self._of_delta(choice.get("delta") or {}, choice.get("logprobs") or {})
        return self._numbering(events)

    def complete(self, completed_at: int | None = None) -> list[Event]:
        """The chunks are all there: close what is open; ``completed_at`` is now where not given."""
        choice, tokens = self._choice, self.transcript.settle()
        answer = ResponseOutput(self._answer_id, choice.answer, choice.finish_reason, tokens, self.logprobs)
        self.response = complete_response(self.response, answer, completed_at=completed_at)
        return [*self._numbering(self._closing()), self._about_response(_TERMINAL[self.response["status"]])]

    def fail(self, error: ApiError) -> list[Event]:
        """The generation failed: the error in our words, and the response that failed."""
        self.response = failed(self.response, error)
        told = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return [*self._numbering([told]), self._about_response("response.failed")]

    def cancel(self) -> list[Event]:
        """The response was cancelled. OpenAI publishes no event of that name: ``status`` says it."""
        self.response = cancelled(self.response)
        return [self._about_response("response.incomplete")]

    @property
    def _choice(self) -> ChoiceTranscript:
        return self.transcript.choices.get(0) or ChoiceTranscript()

    def _of_delta(self, delta: dict[str, Any], logprobs: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        if delta.get("reasoning_content"):
            item = self._go_to(self._ids.reasoning, events)
            events += item.text_delta(ContentPartStream.REASONING, delta["reasoning_content"])
        if delta.get("content"):
            tokens = logprobs.get("content") or []
            self.logprobs += tokens
            item = self._go_to(self._ids.message, events)
            events += item.text_delta(ContentPartStream.TEXT, delta["content"], self._published(tokens))
        if delta.get("refusal"):
            item = self._go_to(self._ids.message, events)
            events += item.text_delta(ContentPartStream.REFUSAL, delta["refusal"])
        for call in delta.get("tool_calls") or ():
            item = self._go_to(self._ids.call(int(call.get("index") or 0)), events)
            events += item.arguments_delta((call.get("function") or {}).get("arguments"))
        return events

    def _go_to(self, item_id: str, events: list[Event]) -> OutputItemStream:
        """Make an item the one that is being generated; what that tells the client is added to ``events``."""
        current = self._current
        if current is not None and current.id == item_id:
            return current
        items = self._items()
        if current is not None:
            events += current.closed(items[current.id])
        if item_id not in self._opened:
            self._opened[item_id] = OutputItemStream(item_id, len(self._opened))
            events += self._opened[item_id].added(items[item_id])
        self._current = self._opened[item_id]
        return self._current

    def _items(self) -> dict[str, dict[str, Any]]:
        """The items as they are now, by id."""
        items = output_items(self._answer_id, self._choice.answer, self._published(self.logprobs))
        return {item["id"]: item for item in items}

    def _published(self, logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return published_logprobs(logprobs, self.response["top_logprobs"])

    def _closing(self) -> list[Event]:
        """Close the items of the finished response; an answer without a word has a message without one."""
        final, events = {item["id"]: item for item in self.response["output"]}, list[Event]()
        for item_id in final:
            if item_id not in self._opened:
                item = self._go_to(item_id, events)
                events += item.part_added(ContentPartStream.TEXT) if item_id == self._ids.message else []
        if self._current is not None:
            events += self._current.closed(final[self._current.id])
        return events

    def _about_response(self, kind: str) -> Event:
        return self._numbering([{"type": kind, "response": self.response}])[0]

    def _numbering(self, events: list[Event]) -> list[Event]:
        first, self._numbered = self._numbered, self._numbered + len(events)
        return [event | {"sequence_number": number} for number, event in enumerate(events, first)]
