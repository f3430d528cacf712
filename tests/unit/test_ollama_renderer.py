"""Chunks of the model server as Ollama's lines: pieces, calls of tools, the figures at the end, failures."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
import pytest

from mistral_api.errors import ModelServerRefused, ModelTimeout, NotFound
from mistral_api.generation.llama_cpp_renderer import LlamaCppTranscript
from mistral_api.generation.ollama_context import decode_context
from mistral_api.generation.ollama_renderer import (
    OllamaChatRenderer,
    OllamaGenerateRenderer,
    OllamaInfillRenderer,
    OllamaRenderer,
    ollama_error,
    token_logprobs,
)
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.sse import StreamEvent, encode_event
from mistral_api.upstream.transcript import Transcript

TIMINGS = {"cache_n": 3, "prompt_n": 4, "prompt_ms": 0.002, "predicted_n": 5, "predicted_ms": 0.001}
PAYLOAD: ChatPayload = {
    "model": "served",
    "shown_model": "Asked:latest",
    "messages": [{"role": "user", "content": "q"}],
}
CALLS = [
    {"index": 0, "id": "call_a", "function": {"name": "add", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"x":'}},
    {"index": 0, "function": {"arguments": " 1}"}},
    {"index": 1, "function": {"name": "stop", "arguments": "{"}},
]


def _rendered(
    renderer: type[OllamaRenderer], chunks: list[Any], transcript: Transcript | None = None, **payload: Any
) -> tuple[list[Any], OllamaRenderer]:
    """Return the lines of a complete stream, and the renderer."""
    transcript = transcript or Transcript()
    fields: Any = {**PAYLOAD, **payload}
    made = renderer(transcript, fields, "sess_1")
    written = b""
    for chunk in chunks:
        event = StreamEvent(encode_event(chunk), chunk)
        transcript.add_chunk(chunk)
        written += made.event(event)
    written += made.closing()
    return [orjson.loads(line) for line in written.splitlines()], made


def _chunk(finish: str | None = None, **delta: Any) -> Any:
    return {"model": "served", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}},
    "timings": TIMINGS,
}


def test_ollama_chat_has_a_line_for_each_piece_and_the_figures_in_the_last() -> None:
    chunks = [_chunk(role="assistant"), _chunk(reasoning_content="Hm"), _chunk(content="a"), _chunk("length"), USAGE]
    lines, renderer = _rendered(OllamaChatRenderer, chunks)
    assert [(line["model"], line["done"]) for line in lines] == [("Asked:latest", False)] * 2 + [("Asked:latest", True)]
    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "", "thinking": "Hm"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": ""},
    ]
    last = lines[-1]
    assert last["done_reason"] == "length"
    assert (last["prompt_eval_count"], last["eval_count"]) == (7, 5)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (2000, 1000)
    assert last["total_duration"] == last["load_duration"] + 3000
    assert datetime.fromisoformat(last["created_at"]).tzinfo is not None
    body: Any = renderer.body()
    assert body["message"] == {"role": "assistant", "content": "a", "thinking": "Hm"}
    assert (body["done"], body["session_id"], body["eval_count"]) == (True, "sess_1", 5)


def test_ollama_calls_of_tools_come_whole_in_a_line_of_their_own() -> None:
    chunks = [_chunk(tool_calls=[piece]) for piece in CALLS]
    lines, renderer = _rendered(OllamaChatRenderer, [*chunks, _chunk("tool_calls")])
    calls = [
        {"id": "call_a", "function": {"index": 0, "name": "add", "arguments": {"x": 1}}},
        {"function": {"index": 1, "name": "stop", "arguments": {}}},  # it was cut off
    ]
    assert [line["message"].get("tool_calls") for line in lines] == [calls, None]
    assert lines[-1]["done_reason"] == "stop"
    body: Any = renderer.body()
    assert body["message"]["tool_calls"] == calls


def test_ollama_figures_are_measured_where_the_model_server_tells_none_or_others() -> None:
    for timings in ({}, {"timings": {"prompt_ms": 5e6, "predicted_ms": 5e6}}):  # an answer from the cache
        lines, _ = _rendered(OllamaChatRenderer, [_chunk(content="a"), _chunk("stop") | timings])
        last = lines[-1]
        parts = last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
        assert 0 < last["total_duration"] < 10**9
        assert abs(parts - last["total_duration"]) <= 2


def test_ollama_completion_ends_with_the_context_of_the_next_prompt() -> None:
    lines, _ = _rendered(OllamaGenerateRenderer, [_chunk(content="a"), _chunk(content="b"), _chunk("stop")])
    assert [line["response"] for line in lines] == ["a", "b", ""]
    assert decode_context(lines[-1]["context"]) == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "ab"},
    ]


def test_ollama_raw_completion_has_no_context() -> None:
    choice = {"index": 0, "text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": None}}
    payload: Any = {"messages": None}
    lines, _ = _rendered(OllamaGenerateRenderer, [{"choices": [choice | {"finish_reason": "stop"}]}], **payload)
    assert lines[0]["response"] == "a"
    assert lines[0]["logprobs"] == [{"token": "a", "logprob": -1.0, "top_logprobs": []}]
    assert "context" not in lines[-1]


def test_ollama_infill_renders_llama_cpps_own_events() -> None:
    events = [
        {"index": 0, "content": "a, b", "stop": False},
        {"index": 0, "content": "", "stop": True, "stop_type": "limit", "tokens_evaluated": 4, "tokens_predicted": 2},
    ]
    payload: Any = {"messages": None}
    lines, renderer = _rendered(OllamaInfillRenderer, events, LlamaCppTranscript(), **payload)
    assert [line["response"] for line in lines] == ["a, b", ""]
    assert (lines[-1]["done_reason"], lines[-1]["eval_count"]) == ("length", 2)
    body: Any = renderer.body()
    assert body["response"] == "a, b"


def test_log_probabilities_of_a_legacy_completion_get_the_form_of_a_chats() -> None:
    legacy: Any = {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0], "top_logprobs": [{"a": -1.0}, {"c": -0.5}]}
    assert token_logprobs(legacy) == [
        {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]},
        {"token": "b", "logprob": -2.0, "top_logprobs": [{"token": "c", "logprob": -0.5}]},
    ]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModelTimeout("Too slow."), "Too slow."),
        (NotFound("No 'x'.", code="model_not_found", param="model"), "model not found: No 'x'."),
        (ModelServerRefused("Bad schema.", param="format"), "Invalid 'format': Bad schema."),
        (ModelServerRefused("Invalid 'format': bad.", param="format"), "Invalid 'format': bad."),
    ],
)
def test_ollama_error_is_one_sentence_that_names_the_field(error: Any, sentence: str) -> None:
    assert ollama_error(error) == {"error": sentence}
    failed = OllamaChatRenderer(Transcript(), PAYLOAD, "s").failure(error)
    assert failed == orjson.dumps({"error": sentence}) + b"\n"
