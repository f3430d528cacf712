"""The typed events of a streamed response (OpenAI's ``ResponseStreamEvent``), made from chat completion chunks.

The order is OpenAI's: reasoning, message and function calls one after the other, each item closed when the next begins.
A model may come back to an item that it had left (some think again between their calls). That item then goes on, and is
closed again with all that it holds by then.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from mistral_api.conversations.item_parser import output_text
from mistral_api.conversations.item_renderer import ItemIds
from mistral_api.conversations.tool_items import call_type
from mistral_api.errors import ApiError
from mistral_api.payload_types.completions import Chunk, Delta, Logprobs, TokenLogprob, ToolCallDelta
from mistral_api.payload_types.responses import ItemPart, OutputItem, Response, ResponseEvent, ResponseLogprob
from mistral_api.responses.response_object import (
    ResponseOutput,
    cancelled,
    complete_response,
    failed,
    in_progress,
    item_parts,
    output_items,
    published_logprobs,
)
from mistral_api.responses.tool_events import announced_call, call_delta, call_done
from mistral_api.upstream.transcript import ChoiceTranscript, Transcript


class ContentPartKind(StrEnum):
    """The kinds of content parts; each is also the name of its events."""

    TEXT = "output_text"
    REFUSAL = "refusal"
    REASONING = "reasoning_text"

    def part(self, text: str) -> ItemPart:
        """Return a part of this kind with a text."""
        if self is ContentPartKind.REFUSAL:
            return {"type": str(self), "refusal": text}
        return output_text(text) if self is ContentPartKind.TEXT else {"type": str(self), "text": text}


class OutputItemStream:
    """The events of one output item, from its announcement to its end; it may go on after that, and end again."""

    def __init__(self, item_id: str, output_index: int) -> None:
        self.id = item_id
        self._output_index = output_index
        self._parts: list[ContentPartKind] = []
        self._kind = ""

    def added(self, item: OutputItem) -> list[ResponseEvent]:
        """Announce the item, with nothing in it yet."""
        self._kind = item.get("type", "message")
        if item["type"] == "message" or item["type"] == "reasoning":
            announced: OutputItem = item | {"content": []}
        else:
            announced = announced_call(item)
        announced["status"] = "in_progress"
        return [{"type": "response.output_item.added", "output_index": self._output_index, "item": announced}]

    def part_added(self, kind: ContentPartKind) -> list[ResponseEvent]:
        """Announce a part, unless it has been announced."""
        if kind in self._parts:
            return []
        self._parts.append(kind)
        return [self._about_part("response.content_part.added", kind) | {"part": kind.part("")}]

    def text_delta(
        self, kind: ContentPartKind, text: str, logprobs: list[ResponseLogprob] | None = None
    ) -> list[ResponseEvent]:
        """Add text to a part. ``logprobs``: of its tokens, in published form."""
        announced = self.part_added(kind)
        delta = self._about_part(f"response.{kind}.delta", kind) | {"delta": text}
        return [*announced, delta | {"logprobs": logprobs or []} if kind is ContentPartKind.TEXT else delta]

    def call_delta(self, call: ToolCallDelta) -> list[ResponseEvent]:
        """Add to the call of a tool, where its kind streams what it says."""
        delta = call_delta(self._kind, call)
        return [] if delta is None else [self._of_item(delta)]

    def closed(self, item: OutputItem) -> list[ResponseEvent]:
        """Close the item; ``item`` is all of it."""
        events = [self._of_item(each) for each in call_done(item)]
        for kind in self._parts:
            events += self._part_done(kind, next(each for each in item_parts(item) if each["type"] == kind))
        return [*events, {"type": "response.output_item.done", "output_index": self._output_index, "item": item}]

    def _part_done(self, kind: ContentPartKind, part: ItemPart) -> list[ResponseEvent]:
        done = self._about_part(f"response.{kind}.done", kind)
        if kind is ContentPartKind.REFUSAL:
            done["refusal"] = part["refusal"]
        else:
            done["text"] = part["text"]
        if kind is ContentPartKind.TEXT:
            done["logprobs"] = part["logprobs"]
        return [done, self._about_part("response.content_part.done", kind) | {"part": part}]

    def _of_item(self, event: ResponseEvent) -> ResponseEvent:
        return event | {"item_id": self.id, "output_index": self._output_index}

    def _about_item(self, event_type: str) -> ResponseEvent:
        return {"type": event_type, "item_id": self.id, "output_index": self._output_index}

    def _about_part(self, event_type: str, kind: ContentPartKind) -> ResponseEvent:
        return self._about_item(event_type) | {"content_index": self._parts.index(kind)}


_TERMINAL = {"completed": "response.completed", "incomplete": "response.incomplete"}


class ResponseEvents:
    """The events of one response while it streams. Each method returns the events that are due, numbered from 0.

    ``response`` is the Response object as it is now; after :meth:`complete`, :meth:`fail` or :meth:`cancel` it is the
    final one. Not safe to use from several threads at once.
    """

    def __init__(
        self, response: Response, answer_id: UUID, transcript: Transcript, *, encrypted_reasoning: bool = False
    ) -> None:
        """``response``: a new one, from ``new_response``; ``answer_id``: of the assistant's message; ``transcript``:
        has every chunk before :meth:`chunk` gets it. ``encrypted_reasoning`` is that of :class:`ResponseOutput`."""
        self.response = response
        self.transcript = transcript
        # The log probabilities of the answer's text alone; llama.cpp also gives those of its reasoning.
        self.logprobs: list[TokenLogprob] = []
        self._answer_id = answer_id
        self._encrypted = encrypted_reasoning
        self._ids = ItemIds(answer_id)
        self._numbered = 0
        # The items in the order of their announcement, which is that of their indexes.
        self._opened: dict[str, OutputItemStream] = {}
        self._current: OutputItemStream | None = None

    def begin(self) -> list[ResponseEvent]:
        """Announce the response: queued, or in progress."""
        created = self._about_response("response.created")
        follows = "response.queued" if self.response["status"] == "queued" else "response.in_progress"
        return [created, self._about_response(follows)]

    def start(self) -> list[ResponseEvent]:
        """Announce that the generation of a queued response has begun."""
        self.response = in_progress(self.response)
        return [self._about_response("response.in_progress")]

    def chunk(self, chunk: Chunk) -> list[ResponseEvent]:
        """Take a chunk of the chat completion."""
        events: list[ResponseEvent] = []
        for choice in chunk.get("choices") or ():
            events += self._of_delta(choice.get("delta") or {}, choice.get("logprobs") or {})
        return self._numbering(events)

    def complete(self, completed_at: int | None = None) -> list[ResponseEvent]:
        """Close what is open, since all chunks are there. ``completed_at``: in Unix seconds, now where not given."""
        choice, tokens = self._choice, self.transcript.count_tokens()
        answer = ResponseOutput(
            self._answer_id, choice.answer, choice.finish_reason, tokens, self.logprobs, self._encrypted
        )
        self.response = complete_response(self.response, answer, completed_at=completed_at)
        return [*self._numbering(self._closing()), self._about_response(_TERMINAL[self.response["status"]])]

    def fail(self, error: ApiError) -> list[ResponseEvent]:
        """Announce that the generation failed: the error, and the response that failed."""
        self.response = failed(self.response, error)
        failure: ResponseEvent = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return [*self._numbering([failure]), self._about_response("response.failed")]

    def cancel(self) -> list[ResponseEvent]:
        """Announce that the response was cancelled. OpenAI publishes no event of that name: ``status`` says it."""
        self.response = cancelled(self.response)
        return [self._about_response("response.incomplete")]

    @property
    def _choice(self) -> ChoiceTranscript:
        return self.transcript.choices.get(0) or ChoiceTranscript()

    def _of_delta(self, delta: Delta, logprobs: Logprobs) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        reasoning, content, refusal = delta.get("reasoning_content"), delta.get("content"), delta.get("refusal")
        if reasoning:
            item = self._go_to(self._ids.reasoning, events)
            events += item.text_delta(ContentPartKind.REASONING, reasoning)
        if content:
            tokens = logprobs.get("content") or []
            self.logprobs += tokens
            item = self._go_to(self._ids.message, events)
            events += item.text_delta(ContentPartKind.TEXT, content, self._published(tokens))
        if refusal:
            item = self._go_to(self._ids.message, events)
            events += item.text_delta(ContentPartKind.REFUSAL, refusal)
        for call in delta.get("tool_calls") or ():
            item = self._go_to(self._call_id(int(call.get("index") or 0)), events)
            events += item.call_delta(call)
        return events

    def _call_id(self, number: int) -> str:
        """Return the id of the item of a call that the transcript has."""
        return self._ids.call(number, call_type((self._choice.message.get("tool_calls") or [])[number]))

    def _go_to(self, item_id: str, events: list[ResponseEvent]) -> OutputItemStream:
        """Make an item the current one. The events that this takes are added to ``events``."""
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

    def _items(self) -> dict[str, OutputItem]:
        """Return the items as they are now, by id."""
        logprobs = self._published(self.logprobs)
        items = output_items(self._answer_id, self._choice.answer, logprobs, encrypted_reasoning=self._encrypted)
        return {item["id"]: item for item in items}

    def _published(self, logprobs: list[TokenLogprob]) -> list[ResponseLogprob]:
        return published_logprobs(logprobs, self.response["top_logprobs"])

    def _closing(self) -> list[ResponseEvent]:
        """Close the items of the complete response; an empty answer has a message with an empty text."""
        final, events = {item["id"]: item for item in self.response["output"]}, list[ResponseEvent]()
        for item_id in final:
            if item_id not in self._opened:
                item = self._go_to(item_id, events)
                events += item.part_added(ContentPartKind.TEXT) if item_id == self._ids.message else []
        if self._current is not None:
            events += self._current.closed(final[self._current.id])
        return events

    def _about_response(self, kind: str) -> ResponseEvent:
        return self._numbering([{"type": kind, "response": self.response}])[0]

    def _numbering(self, events: list[ResponseEvent]) -> list[ResponseEvent]:
        first, self._numbered = self._numbered, self._numbered + len(events)
        return [event | {"sequence_number": number} for number, event in enumerate(events, first)]
