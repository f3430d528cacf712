"""What a transcript collects from whole and streamed completions."""

from typing import Any

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
