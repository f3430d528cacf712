"""The transcript of one response: text, tool calls and token counts, gathered chunk by chunk or from a whole body.

Field names are those of OpenAI's chat completion and completion objects and their stream chunks. ``timings`` is
llama.cpp's (tools/server/README.md), and the only count that an interrupted stream has.

A response that does not stream is put together from a stream too. llama.cpp notices that a client has left when it
writes to it, or when it has had nothing at all to send to anybody for a second (``HTTP_POLLING_SECONDS`` in
tools/server/server-context.cpp): on a busy server an abandoned request that does not stream runs to its end. So our
model server is always asked for a stream, and :func:`assemble_body` makes the one object that it would have sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.completions import Chunk

_JOINED = ("content", "reasoning_content", "refusal")
_HEAD = ("id", "created", "model", "system_fingerprint")
# What llama.cpp says beside OpenAI's fields (tools/server/server-task.cpp); it holds the stop sequence that was met.
_VERBOSE = "__verbose"


@dataclass(slots=True)
class TokenCounts:
    """Token counts of one request; None where the model server did not say."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


@dataclass(slots=True)
class ChoiceTranscript:
    """One choice: the fields of its message, why it ended, the log probabilities of its tokens."""

    message: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    logprobs: dict[str, list[Any] | None] | None = None

    @property
    def answer(self) -> dict[str, Any]:
        """The message; its content is null only where tool calls stand in its place (OpenAI's ``Message``)."""
        content = self.message.get("content")
        calls = self.message.get("tool_calls") or self.message.get("function_call")
        return self.message | {"content": "" if content is None and not calls else content}


class Transcript:
    """The growing transcript of one response.

    ``choices_per_prompt``: how many choices share a prompt. ``progress``: the model
    server's last report on the prompt. ``verbose``: llama.cpp's own fields of the last chunk that had them.
    """

    def __init__(self, choices_per_prompt: int = 1) -> None:
        self.choices: dict[int, ChoiceTranscript] = {}
        self.choices_per_prompt = choices_per_prompt
        self.tokens = TokenCounts()
        self.head: dict[str, Any] = {}
        self.timings: dict[str, Any] | None = None
        self.progress: JsonObject | None = None
        self.verbose: JsonObject = {}
        self._deltas = 0
        self._usages: list[dict[str, Any]] = []

    def add_body(self, body: dict[str, Any]) -> None:
        """Take a whole response (``chat.completion`` or ``text_completion``)."""
        for choice in _objects(body.get("choices")):
            message = choice.get("message") or {"content": choice.get("text")}
            entry = self._choice(choice)
            entry.message = {name: value for name, value in message.items() if name != "role"}
        self._add_counts(body)

    def add_chunk(self, chunk: Chunk) -> None:
        """Take one chunk of a stream."""
        for choice in _objects(chunk.get("choices")):
            delta = choice.get("delta") or {"content": choice.get("text")}
            entry = self._choice(choice)
            self._deltas += _extend_message(entry.message, delta)
            if choice.get("logprobs"):
                entry.logprobs = _extended_logprobs(entry.logprobs or {}, choice["logprobs"])
        self._add_counts(chunk)

    def _choice(self, choice: dict[str, Any]) -> ChoiceTranscript:
        entry = self.choices.setdefault(int(choice.get("index") or 0), ChoiceTranscript())
        entry.finish_reason = choice.get("finish_reason") or entry.finish_reason
        return entry

    def _add_counts(self, body: dict[str, Any]) -> None:
        if not self.head:
            self.head = {name: body[name] for name in _HEAD if name in body}
        if isinstance(body.get("usage"), dict):
            self._usages.append(body["usage"])
        if isinstance(body.get("timings"), dict):
            self.timings = body["timings"]
        if isinstance(body.get(_VERBOSE), dict):
            self.verbose = body[_VERBOSE]

    def count_tokens(self) -> TokenCounts:
        """Return the counts as far as they are known. In a stream cut short each delta counts as one token, since
        llama.cpp sends one at a time.

        llama.cpp reports the usage of each choice apart, and with each the prompt that the choices share.
        """
        if self._usages:
            sharing = self.choices_per_prompt if len(self._usages) > 1 else 1
            details = [usage.get("prompt_tokens_details") or {} for usage in self._usages]
            self.tokens.prompt = _sum(self._usages, "prompt_tokens") // sharing
            self.tokens.cached = _sum(details, "cached_tokens") // sharing
            self.tokens.completion = _sum(self._usages, "completion_tokens")
        elif self._deltas:
            self.tokens.completion = self._deltas
        return self.tokens

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
    def answers(self) -> list[dict[str, Any]]:
        """The message of each choice, in the order of their indexes."""
        return [self.choices[index].answer for index in sorted(self.choices)]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _sum(counts: list[dict[str, Any]], name: str) -> int:
    return sum(int(count.get(name) or 0) for count in counts)


def _extended_logprobs(known: dict[str, list[Any] | None], piece: dict[str, Any]) -> dict[str, list[Any] | None]:
    """Return the lists of a ``logprobs`` object, a chat's or a legacy completion's, with those of the next chunk."""
    return {name: (known.get(name) or []) + each if each else known.get(name) for name, each in piece.items()}


def _extend_message(message: dict[str, Any], delta: dict[str, Any]) -> int:
    """Add a delta to a message. Return 1 if it carries something that the model generated, else 0."""
    generated = 0
    for name in _JOINED:
        if delta.get(name):
            message[name] = (message.get(name) or "") + delta[name]
            generated = 1
    for call in _objects(delta.get("tool_calls")):
        _extend_tool_call(message.setdefault("tool_calls", []), call)
        generated = 1
    if isinstance(delta.get("function_call"), dict):  # the deprecated form of a tool call
        _extend_function(message.setdefault("function_call", {"name": "", "arguments": ""}), delta["function_call"])
        generated = 1
    return generated


def _extend_tool_call(calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Add a delta to the tool call of its index. The first delta of a call brings id and name, all bring arguments."""
    index = int(delta.get("index") or 0)
    while len(calls) <= index:
        calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    call["id"] = delta.get("id") or call["id"]
    _extend_function(call["function"], delta.get("function") or {})


def _extend_function(function: dict[str, str], delta: dict[str, Any]) -> None:
    for name in ("name", "arguments"):
        function[name] += delta.get(name) or ""


def assemble_body(transcript: Transcript, *, chat: bool) -> dict[str, Any]:
    """Return the ``chat.completion`` or ``text_completion`` object of a complete transcript."""
    render_choice = _chat_choice if chat else _text_choice
    tokens = transcript.count_tokens()
    usage = {
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


def _chat_choice(index: int, choice: ChoiceTranscript) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "refusal": None} | choice.answer,
        "logprobs": None if choice.logprobs is None else {"refusal": None} | choice.logprobs,
        "finish_reason": choice.finish_reason,
    }


def _text_choice(index: int, choice: ChoiceTranscript) -> dict[str, Any]:
    return {
        "index": index,
        "text": choice.message.get("content") or "",
        "logprobs": choice.logprobs,
        "finish_reason": choice.finish_reason,
    }
