"""Renderers: what the client of a dialect reads, made from the chat completion chunks of the model server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

from mistral_api.errors import ApiError, error_event
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.anthropic import AnthropicMessage
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.payload_types.completions import Completion, LlamaCppEvent
from mistral_api.payload_types.ollama import OllamaChat, OllamaGenerate
from mistral_api.payload_types.responses import Response
from mistral_api.upstream.sse import DONE, EventBatch, StreamEvent
from mistral_api.upstream.transcript import Transcript, assemble_body

# The body of a response that does not stream. llama.cpp's own is what its client has selected, and may be an array.
LlamaCppBody = LlamaCppEvent | JsonObject
ResponseBody = (
    Completion | AnthropicMessage | Response | OllamaChat | OllamaGenerate | LlamaCppBody | list[LlamaCppBody]
)


class Renderer(ABC):
    """Renders one response, as a stream of events or as one body. It never waits, and records nothing.

    The pipeline calls :meth:`first_events`, then :meth:`relay` or :meth:`event` for all that arrives, at the end
    :meth:`complete` and, once the exchange is recorded, :meth:`closing`; or :meth:`failure`. Every event is in the
    transcript before :meth:`event` gets it. For a response that does not stream the pipeline calls :meth:`gather` in
    the place of :meth:`event`, where :attr:`gathers` says so, and :meth:`body` in the place of :meth:`closing`.
    """

    # Whether :meth:`gather` takes note of events. Those of other renderers are decoded many at once.
    gathers = False

    def __init__(self, transcript: Transcript, payload: ChatPayload, session_id: str) -> None:
        """``transcript`` is the one that the pipeline fills; ``payload`` the valid request."""
        self.transcript = transcript
        self.session_id = session_id
        self.payload = payload

    def first_events(self) -> bytes:
        """Return the events that come before all others."""
        return b""

    def relay(self, batch: EventBatch) -> bytes | None:
        """Return the bytes that go out untouched, before anybody decodes them; None: render the single events."""
        return None

    def comment(self, text: str) -> bytes:
        """Return what tells the client of a stream something that is no part of the response."""
        return b": %b\n\n" % text.encode()

    @abstractmethod
    def event(self, event: StreamEvent) -> bytes:
        """Return what the client sees of an event; nothing, if it does not see it."""

    def gather(self, event: StreamEvent) -> None:
        """Take note of an event of a response that does not stream."""
        return

    def complete(self) -> None:
        """Take note that the response is complete."""
        return

    @abstractmethod
    def closing(self) -> bytes:
        """Return the last events of a complete response."""

    @abstractmethod
    def failure(self, error: ApiError) -> bytes:
        """Return the last events of a response that has failed, or that its client has given up."""

    @abstractmethod
    def body(self) -> ResponseBody:
        """Return the whole of a complete response."""

    def convert(self, body: Completion) -> ResponseBody:
        """Return the response of an engine that was not asked for a stream, in this dialect."""
        return body | {"session_id": self.session_id}


# An object of numbers follows; within a JSON string the quotation marks would have backslashes.
_TIMINGS = b',"timings":{'
_USAGE_NAME = b'"usage"'
# The end of an event that is an object with a field at least: no string holds a bare line feed.
_END, _END_WITH_NULL_USAGE = b"}\n\n", b',"usage":null}\n\n'


class CompletionRenderer(Renderer):
    """OpenAI's chat and legacy completions: the chunks of the model server, untouched.

    A client that did not ask for them does not get what we ask for besides, to count tokens: the usage, and the
    ``timings`` of every chunk (``timings_per_token``). llama.cpp itself sends timings with the usage.

    For a client that asks for the usage every chunk has the field, null in all but the last (OpenAI's
    ``ChatCompletionStreamOptions``, ``include_usage``). llama.cpp leaves it out. It is written into the bytes.
    """

    chat = False

    def relay(self, batch: EventBatch) -> bytes | None:
        return None if _USAGE_NAME in batch.raw else self._relayed(batch.raw)

    def event(self, event: StreamEvent) -> bytes:
        if _USAGE_NAME not in event.raw or event.data is None:
            return self._relayed(event.raw)
        if event.data.get("usage") is None:
            return self._without_timings(event.raw)
        return event.raw if self._show_usage or event.data.get("choices") else b""

    def _relayed(self, raw: bytes) -> bytes:
        """Return events without usage as the client gets them."""
        shown = self._without_timings(raw)
        return shown.replace(_END, _END_WITH_NULL_USAGE) if self._show_usage else shown

    def _without_timings(self, raw: bytes) -> bytes:
        return raw if self._show_timings else _cut_timings(raw)

    def closing(self) -> bytes:
        return DONE + b"\n\n"

    def failure(self, error: ApiError) -> bytes:
        return error_event(error)

    def body(self) -> ResponseBody:
        """The completion is put together once: it is sent, and it may be stored."""
        return self._body

    @cached_property
    def _body(self) -> ResponseBody:
        return self.convert(assemble_body(self.transcript, chat=self.chat))

    @cached_property
    def _show_timings(self) -> bool:
        return bool(self.payload.get("timings_per_token"))

    @cached_property
    def _show_usage(self) -> bool:
        return bool((self.payload.get("stream_options") or {}).get("include_usage"))


def _cut_timings(raw: bytes) -> bytes:
    """Return events without ``timings``. Most batches are one event: slices take a third of what a pattern does."""
    begin = raw.find(_TIMINGS)
    while begin >= 0:
        numbers, end = begin + len(_TIMINGS), raw.find(b"}", begin)
        if end < 0 or raw.find(b"{", numbers, end) >= 0:  # those of another engine, which has an object in them
            begin = raw.find(_TIMINGS, numbers)
            continue
        raw = raw[:begin] + raw[end + 1 :]
        begin = raw.find(_TIMINGS, begin)
    return raw


class ChatRenderer(CompletionRenderer):
    """OpenAI's chat completions."""

    chat = True
