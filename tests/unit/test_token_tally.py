"""Token counts from whatever a model server says of them, above all where the response is cut off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from mistral_api.generation.llama_cpp_renderer import LlamaCppTranscript
from mistral_api.payload_types.completions import Chunk, Logprobs, TokenLogprob
from mistral_api.upstream.token_tally import read_usage
from mistral_api.upstream.transcript import Transcript
from tests.support.figure_chunks import Counts, piece, progress, timings, usage


def _counts(chunks: Iterable[Any], transcript: Transcript) -> Counts:
    for chunk in chunks:
        transcript.add_chunk(chunk)
    tokens = transcript.count_tokens()
    return tokens.prompt, tokens.cached, tokens.completion


CUT_OFF: dict[str, tuple[list[dict[str, Any]], Counts]] = {
    "before anything was said": ([], (None, None, None)),
    "when the prompt begins": ([progress(24, cache=24)], (24, 24, 0)),
    "within the prompt": ([progress(24, cache=24), progress(152, cache=24)], (152, 24, 0)),
    "within the prompt, measured": ([progress(50, cache=10) | timings(0)], (50, 10, 0)),
    "after a token": ([progress(500, cache=24), piece("a", **timings(1, 476, 24))], (500, 24, 1)),
    "after tokens without a chunk": ([piece("😀", **timings(5)), piece("語", **timings(9))], (50, 10, 9)),
    "by an engine that measures no token": ([progress(500), piece("a"), piece("b")], (500, 0, 2)),
    "by another engine": ([piece("a"), piece("b"), piece("")], (None, None, 2)),
    "by an engine that gives the usage so far": (
        [piece("a", **usage(30, 2)), piece("b", **usage(30, 5, 7))],
        (30, 7, 5),
    ),
    "after its usage": ([progress(500), piece("a", **timings(1)), {"choices": [], **usage(30, 4, 7)}], (30, 7, 4)),
}


@pytest.mark.parametrize("when", CUT_OFF)
def test_response_cut_off_has_the_counts_known_until_then(when: str) -> None:
    chunks, expected = CUT_OFF[when]
    assert _counts(chunks, Transcript()) == expected


def test_usage_so_far_gives_way_to_the_usage_of_the_whole() -> None:
    chunks = [piece("a", **usage(30, 1)), piece("b", **usage(30, 2)), {"choices": [], **usage(30, 3)}]
    assert _counts(chunks, Transcript()) == (30, 0, 3)


@pytest.mark.parametrize("nonsense", ["many", 7, [], {"prompt_tokens": -1, "completion_tokens": 1e300}, {}])
def test_usage_that_makes_no_sense_leaves_what_is_known(nonsense: Any) -> None:
    known = [progress(50, cache=10), piece("a", **timings(3))]
    assert _counts([*known, {"choices": [], "usage": nonsense}], Transcript()) == (50, 10, 3)


@pytest.mark.parametrize("nonsense", ["soon", 7, [], {"processed": "x"}, {"cache": None}])
def test_report_on_the_prompt_that_makes_no_sense_is_left_out(nonsense: Any) -> None:
    odd = {"choices": [{"index": 0, "delta": {}}], "prompt_progress": nonsense, "timings": nonsense}
    assert _counts([odd, piece("a")], Transcript()) == (None, None, 1)


def test_choices_that_share_a_prompt_count_it_once_and_their_tokens_together() -> None:
    # The first choice reads the prompt; the other one reports it when it is read (seen on llama.cpp's server).
    chunks = [progress(64), progress(128), progress(182, index=1), piece("a", 1, **timings(1, 182, 0))]
    assert _counts(chunks, Transcript(2)) == (182, 0, 1)
    more = [progress(182), piece("b", 0, **timings(3, 182, 0)), piece("c", 1, **timings(2, 182, 0))]
    assert _counts([*chunks, *more], Transcript(2)) == (182, 0, 5)


def test_choice_that_finds_the_shared_prompt_in_the_cache_does_not_change_its_cost() -> None:
    first, later = piece("a", 0, **timings(2, 40, 10)), piece("b", 1, **timings(2, 1, 49))
    assert _counts([first, later], Transcript(2)) == (50, 10, 4)


def test_several_prompts_are_added_up() -> None:
    chunks = [progress(3, cache=2), progress(4, index=2), progress(4, index=3), piece("a", 3, **timings(1, 4, 0))]
    assert _counts(chunks, Transcript(2)) == (7, 2, 1)


def test_native_events_of_llama_cpp_count_the_tokens_so_far() -> None:
    report = {"total": 500, "cache": 24, "processed": 88}
    read: Any = {"index": 0, "content": "", "tokens_predicted": 0, "tokens_evaluated": 500, "prompt_progress": report}
    assert _counts([read], LlamaCppTranscript()) == (88, 24, 0)
    transcript = LlamaCppTranscript()
    transcript.add_figures(read)
    token = {"index": 0, "content": "x", "tokens": [5], "stop": False, "tokens_predicted": 4, "tokens_evaluated": 500}
    assert _counts([token], transcript) == (500, 24, 4)


def test_native_events_with_odd_timings_are_counted() -> None:
    last = {"index": 0, "content": "", "stop": True, "timings": "x", "tokens_predicted": 4, "tokens_evaluated": 5}
    assert _counts([last], LlamaCppTranscript()) == (5, 0, 4)


@pytest.mark.parametrize("value", [None, "3", -1, 2.5, float("inf"), float("nan"), 2**31, [3]])
def test_only_whole_numbers_are_counts(value: object) -> None:
    tokens = read_usage({"prompt_tokens": value, "completion_tokens": 3.0, "prompt_tokens_details": value})
    assert (tokens.prompt, tokens.cached, tokens.completion) == (None, None, 3)


def test_figures_alone_add_no_choice() -> None:
    transcript = Transcript()
    figures: Any = progress(64)
    transcript.add_figures(figures)
    assert (transcript.choices, transcript.has_content) == ({}, False)
    assert transcript.progress == figures["prompt_progress"]


def test_chunks_are_not_changed_by_the_transcript_that_counts_them() -> None:
    entry: TokenLogprob = {"token": "a", "logprob": -1.0}
    logprobs: Logprobs = {"content": [entry], "refusal": None}
    chunk: Chunk = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": logprobs}]}
    transcript = Transcript()
    for _ in range(3):
        transcript.add_chunk(chunk)
    assert logprobs == {"content": [entry], "refusal": None}
    assert transcript.choices[0].logprobs == {"content": [entry] * 3, "refusal": None}
