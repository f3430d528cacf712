"""The transcript of one response: text, tool calls and token counts, gathered chunk by chunk or from a whole body.

Field names are those of OpenAI's chat completion and completion objects and their stream chunks. ``timings`` is
llama.cpp's (tools/server/README.md). How tokens are counted, above all those of an interrupted stream, is a question
of ``upstream.token_tally``.

A response that does not stream is put together from a stream too. llama.cpp notices that a client has left when it
writes to it, or when it has had nothing at all to send to anybody for a second (``HTTP_POLLING_SECONDS`` in
tools/server/server-context.cpp): on a busy server an abandoned request that does not stream runs to its end. So our
model server is always asked for a stream, and :func:`assemble_body` makes the one object that it would have sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from mistral_api.payload_types import omit, pick
from mistral_api.payload_types.chat import FunctionCall, ToolCall
from mistral_api.payload_types.completions import (
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    CustomDelta,
    Delta,
    FunctionDelta,
    GeneratedMessage,
    Logprobs,
    PromptProgress,
    Timings,
    ToolCallDelta,
    Usage,
    VerboseFields,
)
from mistral_api.upstream.token_tally import TokenCounts, TokenTally

T = TypeVar("T")

_JOINED: Final = ("content", "reasoning_content", "refusal")
# What tells the tools apart that the model calls as functions (``generation.tool_kind_stage``).
_OF_TOOLS: Final = ("namespace", "item")
_HEAD = ("id", "created", "model", "system_fingerprint")
# What llama.cpp says beside OpenAI's fields (tools/server/server-task.cpp); it holds the stop sequence that was met.
_VERBOSE: Final = "__verbose"


# A chunk with one of these is more than a piece of text.
_MORE_THAN_TEXT: Final = frozenset(("usage", "prompt_progress", _VERBOSE))
# What llama.cpp measures in each chunk: the newest measurements with all of these take the place of earlier ones.
_COUNTS: Final = ("cache_n", "prompt_n", "predicted_n")


class ChoiceTranscript:
    """One choice: the fields of its message, why it ended, the log probabilities of its tokens."""

    __slots__ = ("_message", "_pieces", "finish_reason", "logprobs")

    def __init__(self) -> None:
        self._message: GeneratedMessage = {}
        # The newest pieces of the content. Added one by one, a long answer would be copied for each of them.
        self._pieces: list[str] = []
        self.finish_reason: str | None = None
        self.logprobs: Logprobs | None = None

    @property
    def message(self) -> GeneratedMessage:
        """The message so far."""
        if self._pieces:
            self._message["content"] = (self._message.get("content") or "") + "".join(self._pieces)
            self._pieces.clear()
        return self._message

    @message.setter
    def message(self, message: GeneratedMessage) -> None:
        self._message = message
        self._pieces.clear()

    def add_text(self, piece: str) -> None:
        """Add a piece to the content."""
        self._pieces.append(piece)

    @property
    def answer(self) -> GeneratedMessage:
        """The message; its content is null only where tool calls stand in its place (OpenAI's ``Message``)."""
        content = self.message.get("content")
        calls = self.message.get("tool_calls") or self.message.get("function_call")
        return self.message | {"content": "" if content is None and not calls else content}


class Transcript:
    """The growing transcript of one response.

    ``progress``: the model server's last report on the prompt. ``verbose``: llama.cpp's own fields of the last chunk
    that had them.
    """

    def __init__(self, choices_per_prompt: int = 1) -> None:
        self.choices: dict[int, ChoiceTranscript] = {}
        self.head: Completion = {}
        self.timings: Timings | None = None
        self.progress: PromptProgress | None = None
        self.verbose: VerboseFields = {}
        self._tally = TokenTally(choices_per_prompt)

    @property
    def choices_per_prompt(self) -> int:
        """How many choices share a prompt."""
        return self._tally.choices_per_prompt

    @choices_per_prompt.setter
    def choices_per_prompt(self, number: int) -> None:
        self._tally.choices_per_prompt = number

    def add_body(self, body: Completion) -> None:
        """Take a whole response (``chat.completion`` or ``text_completion``)."""
        for choice in _objects(body.get("choices")):
            message = choice.get("message") or {"content": choice.get("text")}
            entry = self._choice(choice)
            entry.message = omit(message, ("role",))
        self._add_metadata(body)
        usage = body.get("usage")
        if isinstance(usage, dict):
            self._tally.add_usage(usage, None)

    def add_chunks(self, chunks: Iterable[Chunk]) -> None:
        """Take chunks of a stream, in their order."""
        newest: Timings | None = None
        for chunk in chunks:
            if self._add_text(chunk):
                newest = chunk.get("timings") or newest
                continue
            self._add_measurements(newest)
            newest = None
            self.add_chunk(chunk)
        self._add_measurements(newest)

    def _add_text(self, chunk: Chunk) -> bool:
        """Add a chunk to the first choice if it is no more than a piece of text, as nearly all are.

        Return whether it was. Its measurements are left to :meth:`_add_measurements`.
        """
        choice = _only_choice(chunk)
        if choice is None or 0 not in self.choices or not self.head:
            return False
        delta = choice.get("delta")
        if not isinstance(delta, dict) or len(delta) != 1:
            return False
        piece = delta.get("content")
        if not piece or not isinstance(piece, str):
            return False
        self.choices[0].add_text(piece)
        self._tally.add_delta(0)
        return True

    def _add_measurements(self, timings: Timings | None) -> None:
        if timings is not None:
            self._add_timings(timings)
            self._tally.add_timings(timings, 0)

    def add_chunk(self, chunk: Chunk) -> None:
        """Take one chunk of a stream."""
        for choice in _objects(chunk.get("choices")):
            delta = choice.get("delta") or {"content": choice.get("text")}
            entry = self._choice(choice)
            if _extend_message(entry.message, delta):
                self._tally.add_delta(_index(choice))
            logprobs = choice.get("logprobs")
            if logprobs:
                entry.logprobs = _extend_logprobs(entry.logprobs or {}, logprobs)
        self._add_metadata(chunk)
        self.add_figures(chunk)

    def add_figures(self, chunk: Chunk) -> None:
        """Take the token counts of a chunk, and nothing else of it."""
        choices = _objects(chunk.get("choices"))
        index = _index(choices[0]) if choices else None
        usage, timings, progress = chunk.get("usage"), chunk.get("timings"), chunk.get("prompt_progress")
        if isinstance(progress, dict):
            self.progress = progress
            self._tally.add_progress(progress, index or 0)
        if isinstance(timings, dict) and index is not None:
            self._tally.add_timings(timings, index)
        if isinstance(usage, dict):
            self._tally.add_usage(usage, index)

    def _choice(self, choice: ChunkChoice | Choice) -> ChoiceTranscript:
        index = _index(choice)
        entry = self.choices.get(index)
        if entry is None:
            entry = self.choices[index] = ChoiceTranscript()
        entry.finish_reason = choice.get("finish_reason") or entry.finish_reason
        return entry

    def _add_metadata(self, body: Chunk | Completion) -> None:
        if not self.head:
            # It is the same in a chunk and in the whole.
            self.head = pick(cast("Completion", body), _HEAD)
        timings, verbose = body.get("timings"), body.get(_VERBOSE)
        if isinstance(timings, dict):
            self._add_timings(timings)
        if isinstance(verbose, dict):
            self.verbose = verbose

    def _add_timings(self, timings: Timings) -> None:
        if all(isinstance(value, int | float) for value in timings.values()):
            self.timings = timings

    def count_tokens(self) -> TokenCounts:
        """Return the counts as far as they are known."""
        return self._tally.counts()

    @property
    def model(self) -> str | None:
        """The model as the model server names it."""
        return self.head.get("model")

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if 0 in self.choices else None

    @property
    def has_content(self) -> bool:
        """Whether the model has generated anything that can be stored."""
        return any(any(choice.message.values()) for choice in self.choices.values())

    @property
    def answers(self) -> list[GeneratedMessage]:
        """The message of each choice, in the order of their indexes."""
        return [self.choices[index].answer for index in sorted(self.choices)]


def _only_choice(chunk: Chunk) -> ChunkChoice | None:
    """Return the choice of a chunk that has nothing beside it but measurements, and is of the first choice; else None.

    One that ends, or brings log probabilities, is another one.
    """
    choices, timings = chunk.get("choices"), chunk.get("timings")
    if not isinstance(choices, list) or len(choices) != 1 or not _MORE_THAN_TEXT.isdisjoint(chunk):
        return None
    if timings is not None and not (isinstance(timings, dict) and all(name in timings for name in _COUNTS)):
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or choice.get("finish_reason") or choice.get("logprobs"):
        return None
    return choice if choice.get("index") == 0 else None


def _objects(value: list[T] | None) -> list[T]:
    """Return the objects of an array that an engine sent, which may be none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _index(choice: ChunkChoice | Choice) -> int:
    return int(choice.get("index") or 0)


def _extend_logprobs(known: Logprobs, piece: Mapping[str, Any]) -> Logprobs:
    """Add the lists of the next chunk to those of a ``logprobs`` object, a chat's or a legacy completion's. Return it.

    A list grows in place: copied for every token, a long answer would take quadratic time.
    """
    lists = cast("dict[str, Any]", known)
    for name, each in piece.items():
        if each and lists.get(name):
            lists[name].extend(each)
        elif each or name not in lists:
            lists[name] = list(each) if each else each
    return known


def _extend_message(message: GeneratedMessage, delta: Delta) -> bool:
    """Add a delta to a message. Return whether it carries something that the model generated."""
    generated = False
    for name in _JOINED:
        if name in delta and (piece := delta[name]):
            message[name] = (message[name] or "") + piece if name in message else piece
            generated = True
    for call in _objects(delta.get("tool_calls")):
        _extend_tool_call(message.setdefault("tool_calls", []), call)
        generated = True
    function = delta.get("function_call")  # the deprecated form of a tool call
    if isinstance(function, dict):
        _extend_function(message.setdefault("function_call", {"name": "", "arguments": ""}), function)
        generated = True
    return generated


def _extend_tool_call(calls: list[ToolCall], delta: ToolCallDelta) -> None:
    """Add a delta to the tool call of its index. The first delta of a call brings id and name, all bring arguments."""
    index = int(delta.get("index") or 0)
    while len(calls) <= index:
        calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    call["id"] = delta.get("id") or call["id"]
    custom = delta.get("custom")
    if custom is None:
        _extend_function(call["function"], delta.get("function") or {})
    else:
        _extend_custom(call, custom)
    for name in _OF_TOOLS:
        if name in delta:
            call[name] = delta[name]


def _extend_custom(call: ToolCall, delta: CustomDelta) -> None:
    """Add a delta to the call of a custom tool, which has a ``custom`` call in the place of a function."""
    call.pop("function", None)
    custom = call.setdefault("custom", {"name": "", "input": ""})
    call["type"] = "custom"
    custom["name"] += delta.get("name") or ""
    custom["input"] += delta.get("input") or ""


def _extend_function(function: FunctionCall, delta: FunctionDelta) -> None:
    function["name"] += delta.get("name") or ""
    function["arguments"] += delta.get("arguments") or ""


def assemble_body(transcript: Transcript, *, chat: bool) -> Completion:
    """Return the ``chat.completion`` or ``text_completion`` object of a complete transcript."""
    render_choice = _chat_choice if chat else _text_choice
    tokens = transcript.count_tokens()
    usage: Usage = {
        "prompt_tokens": tokens.prompt or 0,
        "completion_tokens": tokens.completion or 0,
        "total_tokens": (tokens.prompt or 0) + (tokens.completion or 0),
        "prompt_tokens_details": {"cached_tokens": tokens.cached or 0},
    }
    body = transcript.head | {
        "object": "chat.completion" if chat else "text_completion",
        "choices": [render_choice(index, transcript.choices[index]) for index in sorted(transcript.choices)],
        "usage": usage,
    }
    return body if transcript.timings is None else body | {"timings": transcript.timings}


def _chat_choice(index: int, choice: ChoiceTranscript) -> Choice:
    return {
        "index": index,
        "message": {"role": "assistant", "refusal": None} | choice.answer,
        "logprobs": None if choice.logprobs is None else {"refusal": None} | choice.logprobs,
        "finish_reason": choice.finish_reason,
    }


def _text_choice(index: int, choice: ChoiceTranscript) -> Choice:
    return {
        "index": index,
        "text": choice.message.get("content") or "",
        "logprobs": choice.logprobs,
        "finish_reason": choice.finish_reason,
    }
