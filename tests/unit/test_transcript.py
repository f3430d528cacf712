"""What a transcript collects from whole and streamed completions."""

import random
from copy import deepcopy
from typing import Any

import pytest

from mistral_api.payload_types.completions import Chunk, Delta, Timings, ToolCallDelta, Usage
from mistral_api.upstream.transcript import Transcript


def _chunk(delta: Delta, index: int = 0, finish: str | None = None) -> Chunk:
    return {"model": "m", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def test_streamed_deltas_are_joined_to_one_message() -> None:
    transcript = Transcript()
    deltas: list[Delta] = [{"role": "assistant", "content": None}, {"content": "Hel"}, {"content": "lo"}]
    for delta in deltas:
        transcript.add_chunk(_chunk(delta))
    transcript.add_chunk(_chunk({}, finish="stop"))
    assert transcript.choices[0].message == {"content": "Hello"}
    assert transcript.finish_reason == "stop"
    assert transcript.model == "m"


def test_tool_call_deltas_are_joined_by_index() -> None:
    transcript = Transcript()
    pieces: list[ToolCallDelta] = [
        {"index": 0, "id": "call_a", "type": "function", "function": {"name": "add", "arguments": ""}},
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": "sub", "arguments": "{"}},
        {"index": 0, "function": {"arguments": '{"x":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "function": {"arguments": "}"}},
    ]
    for piece in pieces:
        transcript.add_chunk(_chunk({"tool_calls": [piece]}))
    assert transcript.choices[0].message["tool_calls"] == [
        {"id": "call_a", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "sub", "arguments": "{}"}},
    ]
    assert transcript.has_content


def test_figures_that_are_no_numbers_do_not_count() -> None:
    transcript = Transcript()
    odd: list[Any] = [
        {"usage": {"prompt_tokens": "x", "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": []}}},
        {"usage": {"prompt_tokens": 2.0, "completion_tokens": None, "prompt_tokens_details": "x"}},
        {"timings": {"predicted_ms": "soon"}},
    ]
    for chunk in odd:
        transcript.add_chunk(chunk)
    tokens = transcript.count_tokens()
    assert (tokens.prompt, tokens.cached, tokens.completion, transcript.timings) == (2, 0, 3, None)


def test_interleaved_choices_are_kept_apart() -> None:
    transcript = Transcript()
    transcript.add_chunk(_chunk({"content": "a"}, index=0))
    transcript.add_chunk(_chunk({"content": "b"}, index=1))
    transcript.add_chunk(_chunk({"content": "A"}, index=0))
    assert [transcript.choices[index].message["content"] for index in (0, 1)] == ["aA", "b"]


def test_usage_chunk_gives_the_token_counts() -> None:
    transcript = Transcript()
    usage: Usage = {"prompt_tokens": 31, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 30}}
    timings: Timings = {"predicted_ms": 30.0, "predicted_per_second": 99.5}
    transcript.add_chunk({"choices": [], "usage": usage, "timings": timings})
    tokens = transcript.count_tokens()
    assert (tokens.prompt, tokens.cached, tokens.completion) == (31, 30, 3)
    assert transcript.timings == timings


def test_prompt_shared_by_choices_is_counted_once() -> None:
    transcript = Transcript(choices_per_prompt=2)
    for _ in range(2):
        transcript.add_chunk({"choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 5}})
    tokens = transcript.count_tokens()
    assert (tokens.prompt, tokens.completion) == (31, 10)


def test_interrupted_stream_counts_its_deltas_as_tokens() -> None:
    transcript = Transcript()
    for text in ("one", " two", " three"):
        transcript.add_chunk(_chunk({"content": text}))
    tokens = transcript.count_tokens()
    assert (tokens.prompt, tokens.completion) == (None, 3)


def test_whole_completion_body_is_read_like_a_chat() -> None:
    transcript = Transcript()
    transcript.add_body({"choices": [{"text": " Paris", "index": 0, "finish_reason": "length"}], "model": "m"})
    assert transcript.choices[0].message == {"content": " Paris"}
    assert transcript.finish_reason == "length"


def test_stream_with_only_a_role_has_no_content() -> None:
    transcript = Transcript()
    transcript.add_chunk(_chunk({"role": "assistant", "content": None}))
    assert not transcript.has_content


# Chunks of every kind that a stream has, and some that none should have.
_KINDS: list[Any] = [
    {"model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]},
    *[{"model": "m", "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in ("Hel", "lo", "", None)],
    {"choices": [{"index": 1, "delta": {"content": "other"}}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
    {"choices": [{"index": 0, "delta": {"content": "a", "reasoning_content": "b"}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}}]},
    {"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": {"content": [{"token": "x"}]}}]},
    {"choices": [{"index": 0, "delta": {"content": "."}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "text": "legacy"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}},
    {"choices": [{"index": 0, "delta": {"content": "u"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    {"choices": [{"index": 0, "delta": {}}], "prompt_progress": {"total": 9, "cache": 1, "processed": 4}},
    {"choices": [{"index": 0, "delta": {"content": "t"}}], "timings": {"predicted_n": 3}},
    *[
        {"choices": [{"index": 0, "delta": {"content": "t"}}],
         "timings": {"cache_n": 2, "prompt_n": 8, "predicted_n": number, "predicted_ms": 1.5}}
        for number in range(4)
    ],
    {"choices": [{"index": 0, "delta": {"content": "v"}}], "__verbose": {"stopping_word": "end"}},
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_chunks_taken_together_leave_what_they_leave_one_by_one(seed: int) -> None:
    dice = random.Random(seed)
    chunks = [dice.choice(_KINDS) for _ in range(dice.randrange(40))]
    singly, together = Transcript(), Transcript()
    for chunk in deepcopy(chunks):
        singly.add_chunk(chunk)
    middle = dice.randrange(len(chunks) + 1)
    for part in (chunks[:middle], chunks[middle:]):
        together.add_chunks(deepcopy(part))
    for transcript in (singly, together):
        assert transcript.answers == singly.answers
        assert transcript.count_tokens() == singly.count_tokens()
        assert (transcript.timings, transcript.verbose, transcript.finish_reason, transcript.model) == (
            singly.timings, singly.verbose, singly.finish_reason, singly.model,
        )  # fmt: skip
        assert {index: each.logprobs for index, each in transcript.choices.items()} == {
            index: each.logprobs for index, each in singly.choices.items()
        }
