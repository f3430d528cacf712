"""The typed events of a streamed response, made from the chunks of a chat completion.

The order is OpenAI's: reasoning, message and function calls one after the other, each item closed when the next
begins. A model that comes back to an item it had left (some think again between their calls) makes that item go
on and be closed again, with all that it holds by then.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from mistral_api.errors import ApiError
from mistral_api.inference.transcript import ChoiceTranscript, Transcript
from mistral_api.items.ids import item_ids
from mistral_api.responses.body import (
    Response,
    ResponseOutput,
    cancelled,
    complete_response,
    failed,
    in_progress,
    output_items,
    published_logprobs,
)
from mistral_api.responses.open_item import ContentPartStream, OutputItemStream

Event = dict[str, Any]

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
        self._ids = item_ids(answer_id)
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
