"""Chat responses, their chunks and our errors as Ollama's: a stream is a JSON object a line (NDJSON).

Each line has a piece of the answer; the last one has ``done``, the reason and the figures. A call of a tool comes in
one piece, before the last line. A failure is a line ``{"error": …}``, after which the stream ends (``docs/api.md`` and
``docs/api/errors.mdx`` in ollama/ollama).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, cast

import orjson

from mistral_api.errors import ApiError
from mistral_api.generation.ollama_context import encode_context
from mistral_api.generation.renderer import Renderer
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatPayload, ToolCall
from mistral_api.payload_types.completions import (
    Chunk,
    ChunkChoice,
    Completion,
    GeneratedMessage,
    LlamaCppEvent,
    Logprobs,
    Timings,
    TokenLogprob,
)
from mistral_api.payload_types.ollama import (
    OllamaChat,
    OllamaErrorBody,
    OllamaFigures,
    OllamaGenerate,
    OllamaMessage,
    OllamaToolCall,
)
from mistral_api.system.time_units import nanoseconds, rfc3339
from mistral_api.upstream.sse import StreamEvent
from mistral_api.upstream.transcript import Transcript

_LENGTH: Final = "length"
NEWLINE: Final = orjson.OPT_APPEND_NEWLINE


def ollama_error(error: ApiError) -> OllamaErrorBody:
    """Return the error body for one of our errors. Its sentence is all that there is, so it names the field.

    Clients look for "not found" where a model is missing.
    """
    if error.code == "model_not_found":
        return {"error": f"model not found: {error.message}"}
    if error.param and error.param not in error.message:
        return {"error": f"Invalid '{error.param}': {error.message}"}
    return {"error": error.message}


def created_now() -> str:
    """Return the time for ``created_at``."""
    return rfc3339(datetime.now(UTC))


class _Stopwatch:
    """Measures a response where the model server does not say how long it took."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first: float | None = None

    def note_first(self) -> None:
        if self._first is None:
            self._first = time.monotonic()

    def figures(self, timings: Timings) -> tuple[float, float, float]:
        """Return the seconds in all, of the prompt and of the answer.

        ``timings`` of an answer from the cache are those of its first time: longer than all that happened now.
        """
        ended = time.monotonic()
        total = ended - self._started
        prompt, answer = timings.get("prompt_ms", 0.0) / 1000, timings.get("predicted_ms", 0.0) / 1000
        if timings and prompt + answer <= total:
            return total, prompt, answer
        first = ended if self._first is None else self._first
        return total, first - self._started, ended - first


class OllamaRenderer(Renderer):
    """What ``/api/chat`` and ``/api/generate`` have in common."""

    gathers = True

    def __init__(self, transcript: Transcript, payload: ChatPayload, session_id: str) -> None:
        super().__init__(transcript, payload, session_id)
        self._model = payload.get("shown_model") or payload.get("model")
        self._stopwatch = _Stopwatch()

    def comment(self, text: str) -> bytes:
        return b""  # lines of JSON have none

    def event(self, event: StreamEvent) -> bytes:
        if event.data is None:
            return b""
        self._stopwatch.note_first()
        return b"".join(_line(each) for each in self._pieces(event.data))

    def gather(self, event: StreamEvent) -> None:
        self._stopwatch.note_first()

    def closing(self) -> bytes:
        calls = _tool_calls(self._answer)
        before = _line(self._piece({"role": "assistant", "content": "", "tool_calls": calls})) if calls else b""
        return before + _line(self._end({"role": "assistant", "content": ""}))

    def failure(self, error: ApiError) -> bytes:
        return orjson.dumps(ollama_error(error), option=NEWLINE)

    def body(self) -> OllamaChat | OllamaGenerate:
        return self._body

    @cached_property
    def _body(self) -> OllamaChat | OllamaGenerate:
        answer = self._answer
        whole = self._end(_message(answer)) | {"session_id": self.session_id}
        logprobs = token_logprobs(self._choice_logprobs)
        return cast("OllamaChat", whole | ({"logprobs": logprobs} if logprobs else {}))

    def convert(self, body: Completion) -> OllamaChat | OllamaGenerate:
        # The pipeline has read the body into the transcript.
        return self.body()

    @property
    def _answer(self) -> GeneratedMessage:
        choices = self.transcript.choices
        return choices[0].answer if 0 in choices else {"content": ""}

    @property
    def _choice_logprobs(self) -> Logprobs | None:
        choices = self.transcript.choices
        return choices[0].logprobs if 0 in choices else None

    def _pieces(self, chunk: Chunk) -> Iterator[OllamaChat | OllamaGenerate]:
        """Yield what a chunk brings of the answer."""
        for choice in _choices(chunk):
            delta = choice.get("delta") or {}
            content, thinking = delta.get("content") or choice.get("text"), delta.get("reasoning_content")
            logprobs = token_logprobs(choice.get("logprobs"))
            if content or thinking or logprobs:
                message: OllamaMessage = {"role": "assistant", "content": content or ""}
                piece = self._piece(message | ({"thinking": thinking} if thinking else {}))
                yield cast("OllamaChat", piece | ({"logprobs": logprobs} if logprobs else {}))

    def _piece(self, message: OllamaMessage) -> OllamaChat | OllamaGenerate:
        """Return the line of a piece of the answer."""
        name = self._model or self.transcript.model or ""
        return {"model": name, "created_at": created_now(), "message": message, "done": False}

    def _end(self, message: OllamaMessage) -> OllamaChat | OllamaGenerate:
        """Return the last line, or the whole of a response that does not stream."""
        reason = "length" if self.transcript.finish_reason == _LENGTH else "stop"
        ended = self._piece(message) | {"done": True, "done_reason": reason} | self._figures()
        return cast("OllamaChat", ended)

    def _figures(self) -> OllamaFigures:
        """Return what the generation took. What is neither prompt nor answer was spent waiting for the model."""
        tokens = self.transcript.count_tokens()
        total, prompt, answer = self._stopwatch.figures(self.transcript.timings or {})
        return {
            "total_duration": nanoseconds(total),
            "load_duration": nanoseconds(max(0.0, total - prompt - answer)),
            "prompt_eval_count": tokens.prompt or 0,
            "prompt_eval_duration": nanoseconds(prompt),
            "eval_count": tokens.completion or 0,
            "eval_duration": nanoseconds(answer),
        }


class OllamaChatRenderer(OllamaRenderer):
    """``/api/chat``."""


class OllamaGenerateRenderer(OllamaRenderer):
    """``/api/generate``: the text stands in ``response``, and the end has the context for the next prompt."""

    def _piece(self, message: OllamaMessage) -> OllamaGenerate:
        name = self._model or self.transcript.model or ""
        piece: OllamaGenerate = {
            "model": name,
            "created_at": created_now(),
            "response": message.get("content", ""),
            "done": False,
        }
        return piece | ({"thinking": message["thinking"]} if "thinking" in message else {})

    def _end(self, message: OllamaMessage) -> OllamaGenerate:
        ended = cast("OllamaGenerate", super()._end(message))
        messages = self.payload.get("messages")
        if messages is None:  # a raw prompt has no context
            return ended
        answer = self._answer.get("content") or ""
        return ended | {"context": encode_context([*messages, {"role": "assistant", "content": answer}])}


class OllamaInfillRenderer(OllamaGenerateRenderer):
    """``/api/generate`` with a ``suffix``: the events are llama.cpp's own."""

    def _pieces(self, chunk: Chunk) -> Iterator[OllamaGenerate]:
        content = cast("LlamaCppEvent", chunk).get("content")
        if content:
            yield self._piece({"role": "assistant", "content": content})


def _line(line: OllamaChat | OllamaGenerate) -> bytes:
    return orjson.dumps(line, option=NEWLINE)


def _choices(chunk: Chunk) -> list[ChunkChoice]:
    return chunk.get("choices") or []


def _message(answer: GeneratedMessage) -> OllamaMessage:
    """Return the whole message of an answer."""
    message: OllamaMessage = {"role": "assistant", "content": answer.get("content") or ""}
    thinking, calls = answer.get("reasoning_content"), _tool_calls(answer)
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_calls(answer: GeneratedMessage) -> list[OllamaToolCall]:
    return [_tool_call(index, call) for index, call in enumerate(answer.get("tool_calls") or [])]


def _tool_call(index: int, call: ToolCall) -> OllamaToolCall:
    function = call["function"]
    called: OllamaToolCall = {
        "function": {"index": index, "name": function["name"], "arguments": _arguments(function["arguments"])}
    }
    call_id = call.get("id")
    return called if call_id is None else {"id": call_id, **called}


def _arguments(arguments: str) -> JsonObject:
    """Return the arguments as an object. An answer cut short may end inside its arguments."""
    try:
        decoded: Any = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def token_logprobs(logprobs: Logprobs | None) -> list[TokenLogprob]:
    """Return the tokens with their log probabilities, of a chat or of a legacy completion."""
    if not logprobs:
        return []
    if "tokens" not in logprobs:
        return logprobs.get("content") or []
    alternatives: list[Any] = list(logprobs.get("top_logprobs") or [])
    tokens = zip(logprobs["tokens"], logprobs.get("token_logprobs", []), strict=False)
    return [_token(token, value, alternatives[index : index + 1]) for index, (token, value) in enumerate(tokens)]


def _token(token: str, logprob: float, alternatives: list[dict[str, float]]) -> TokenLogprob:
    top = [{"token": each, "logprob": value} for found in alternatives for each, value in found.items()]
    return cast("TokenLogprob", {"token": token, "logprob": logprob, "top_logprobs": top})
