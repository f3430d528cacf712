"""Chat completion chunks as llama.cpp sends them, and the deltas of example answers."""

from __future__ import annotations

import random
from collections.abc import Iterable

from mistral_api.payload_types.completions import (
    Chunk,
    ChunkChoice,
    Delta,
    FunctionDelta,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from mistral_api.payload_types.responses import ResponseEvent
from mistral_api.responses.stream_events import ResponseEvents

_HEAD: Chunk = {"id": "chatcmpl-1", "created": 1795572458, "model": "smol", "object": "chat.completion.chunk"}
OPENING: Delta = {"role": "assistant", "content": None}


def chunk(delta: Delta, finish_reason: str | None = None, logprobs: list[TokenLogprob] | None = None) -> Chunk:
    """Return a chunk with one choice."""
    choice: ChunkChoice = {"finish_reason": finish_reason, "index": 0, "delta": delta}
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    return {"choices": [choice], **_HEAD}


def text_delta(piece: str) -> Delta:
    """Return a delta of text."""
    return {"content": piece}


def reasoning_delta(piece: str) -> Delta:
    """Return a delta of reasoning."""
    return {"reasoning_content": piece}


def call_delta(index: int, name: str) -> Delta:
    """Return the delta that begins a function call."""
    function: FunctionDelta = {"name": name, "arguments": ""}
    return {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]}


def arguments_delta(index: int, piece: str) -> Delta:
    """Return a delta of a function call's arguments."""
    return {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def token_logprob(word: str, alternatives: int = 1) -> TokenLogprob:
    """Return the log probabilities of a token, with llama.cpp's ids."""
    own: TopLogprob = {"id": 7, "token": word, "bytes": list(word.encode()), "logprob": -0.5}
    return {**own, "top_logprobs": [own] * alternatives}


def chunk_stream(deltas: list[Delta], finish_reason: str = "stop") -> list[Chunk]:
    """Return a whole stream: prompt progress, the role, the deltas, the finish reason, and the usage."""
    progress = chunk(OPENING) | {"prompt_progress": {"total": 11, "cache": 4, "processed": 11, "time_ms": 1}}
    usage: Usage = {"completion_tokens": 5, "prompt_tokens": 11, "total_tokens": 16}
    usage_chunk: Chunk = {"choices": [], **_HEAD, "usage": usage | {"prompt_tokens_details": {"cached_tokens": 4}}}
    ended = chunk({}, finish_reason)
    return [progress, chunk(OPENING), *(chunk(delta) for delta in deltas), ended, usage_chunk]


def split_deltas(deltas: list[Delta], dice: random.Random) -> list[Delta]:
    """Return the same deltas in other pieces: texts are cut at random places, and some deltas are empty."""
    pieces: list[Delta] = []
    for delta in deltas:
        pieces += [{"content": piece} for piece in _cut(delta.get("content") or "", dice)]
        pieces += [{"reasoning_content": piece} for piece in _cut(delta.get("reasoning_content") or "", dice)]
        pieces += [{"refusal": piece} for piece in _cut(delta.get("refusal") or "", dice)]
        for each in delta.get("tool_calls", ()):
            words = each["function"]["arguments"]
            if "id" in each:
                pieces.append({"tool_calls": [each | {"function": each["function"] | {"arguments": ""}}]})
            pieces += [arguments_delta(each["index"], piece) for piece in _cut(words, dice)]
        if dice.random() < 0.3:
            pieces.append({"content": ""})
    return pieces


def _cut(words: str, dice: random.Random) -> list[str]:
    places = sorted(dice.randrange(len(words) + 1) for _ in range(dice.randrange(4)))
    return [piece for piece in (words[a:b] for a, b in zip([0, *places], [*places, len(words)], strict=True)) if piece]


REASONING_DELTAS = [reasoning_delta("Let me "), reasoning_delta("see.")]
TEXT_DELTAS = [text_delta("Hello"), text_delta(", wörld"), text_delta("!")]
CALL_DELTAS = [
    call_delta(0, "weather"), arguments_delta(0, '{"city": '), arguments_delta(0, '"Paris"}'),
    call_delta(1, "weather"), arguments_delta(1, '{"city": "Rome"}'),
]  # fmt: skip
REFUSAL_DELTAS: list[Delta] = [{"refusal": "I will "}, {"refusal": "not."}]
ANSWER_DELTAS: dict[str, list[Delta]] = {
    "text": TEXT_DELTAS,
    "reasoning-text": REASONING_DELTAS + TEXT_DELTAS,
    "calls": CALL_DELTAS,
    "reasoning-text-calls": REASONING_DELTAS + TEXT_DELTAS + CALL_DELTAS,
    "reasoning-alone": REASONING_DELTAS,
    "refusal": REFUSAL_DELTAS,
    "text-refusal": TEXT_DELTAS + REFUSAL_DELTAS,
    "nothing": [],
    "coming-back": REASONING_DELTAS + TEXT_DELTAS + REASONING_DELTAS + CALL_DELTAS + TEXT_DELTAS,
    "call-without-arguments": [call_delta(0, "now")],
}


def take_chunks(events: ResponseEvents, chunks: Iterable[Chunk]) -> list[ResponseEvent]:
    """Give the chunks to the events of a response as the pipeline does: each is in the transcript first."""
    taken: list[ResponseEvent] = []
    for chunk in chunks:
        events.transcript.add_chunk(chunk)
        taken += events.chunk(chunk)
    return taken
