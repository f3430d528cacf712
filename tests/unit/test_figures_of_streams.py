"""Token counts on their way from the model server to the transcript, past what the client of the stream sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

import orjson
import pytest

from mistral_api.errors import ModelServerFailed
from mistral_api.generation.forced_tool_calls import ToolCallStage
from mistral_api.generation.llama_cpp_renderer import LlamaCppStream, LlamaCppTranscript
from mistral_api.generation.renderer import ChatRenderer
from mistral_api.generation.stages import ChoiceIndexStage, ChunkStage, StagedStream
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.client import UpstreamResponse
from mistral_api.upstream.sse import ChunkStream, EventBatch, SSEStream, StreamEvent, encode_event
from mistral_api.upstream.transcript import Transcript
from tests.support.figure_chunks import Counts, finish, piece, progress, timings, usage

Events = Sequence[dict[str, Any]]


class _Answer:
    """The answer of a model server: these events, and no end where ``cut`` is true."""

    def __init__(self, events: Events, *, cut: bool) -> None:
        self._pieces = [encode_event(event) for event in events] + ([] if cut else [b"data: [DONE]\n\n"])

    def iter_bytes(self) -> Iterator[bytes]:
        yield from self._pieces

    def drain(self) -> None:
        """Nothing follows."""

    def close(self) -> None:
        """There is no connection."""


def _stream(
    events: Events, *, cut: bool = True, show_progress: bool = False, kind: type[ChunkStream] = ChunkStream
) -> ChunkStream:
    return kind(cast("UpstreamResponse", _Answer(events, cut=cut)), show_progress=show_progress)


def _batches(stream: SSEStream) -> Iterator[EventBatch]:
    with suppress(ModelServerFailed):  # it breaks off
        yield from stream


def _read(stream: SSEStream, transcript: Transcript) -> list[EventBatch]:
    """Read a stream as a pipeline does; return its batches."""
    stream.report_figures(transcript.add_figures)
    batches: list[EventBatch] = []
    for batch in _batches(stream):
        batches.append(batch)
        for event in batch.events:
            if event.data is not None:
                transcript.add_chunk(event.data)
    return batches


def _counted(transcript: Transcript) -> Counts:
    tokens = transcript.count_tokens()
    return tokens.prompt, tokens.cached, tokens.completion


@pytest.mark.parametrize("show_progress", [True, False])
def test_report_on_the_prompt_is_counted_before_there_is_a_batch_to_read(show_progress: bool) -> None:
    transcript = Transcript()
    batches = _read(_stream([progress(0), progress(64)], show_progress=show_progress), transcript)
    assert _counted(transcript) == (64, 0, 0)
    # A client that wants the reports gets them, but they are no part of the answer.
    assert [batch.generated for batch in batches] == [False, False] * show_progress


def test_report_on_the_prompt_is_known_when_the_first_chunk_is_rendered() -> None:
    transcript = Transcript()
    stream = _stream([progress(24, cache=24), progress(500, cache=24), piece("a")])
    stream.report_figures(transcript.add_figures)
    seen = [transcript.progress for batch in _batches(stream) if b'"a"' in batch.raw]
    assert seen == [{"total": 500, "cache": 24, "processed": 500, "time_ms": 1}]


@pytest.mark.parametrize("show_progress", [True, False])
def test_native_report_on_the_prompt_is_counted_at_once(show_progress: bool) -> None:
    report = {"total": 500, "cache": 24, "processed": 88}
    event = {"index": 0, "content": "", "stop": False, "tokens_evaluated": 500, "prompt_progress": report}
    transcript = LlamaCppTranscript()
    batches = _read(_stream([event], show_progress=show_progress, kind=LlamaCppStream), transcript)
    assert _counted(transcript) == (88, 24, 0)
    assert [batch.generated for batch in batches] == [False] * show_progress


def _staged(stages: Sequence[ChunkStage], *responses: Events) -> Counts:
    """Return the counts of three choices that break off in the last of these responses of the model server."""
    transcript = Transcript(choices_per_prompt=3)
    last = len(responses) - 1
    streams = [_stream(response, cut=number == last) for number, response in enumerate(responses)]
    _read(StagedStream(streams, stages), transcript)
    return _counted(transcript)


def test_usage_that_a_stage_keeps_for_the_end_is_counted_where_there_is_no_end() -> None:
    first = [
        *(progress(64), progress(182), piece("a", 1, **timings(1, 182, 0)), piece("b", 0, **timings(1, 182, 0))),
        *(finish(0), {"choices": [], **usage(182, 5)}, finish(1), {"choices": [], **usage(182, 9)}),
    ]
    second = [progress(182, cache=181), piece("c", 0, **timings(4, 1, 181))]
    assert _staged([ChoiceIndexStage([2, 1])], first, second[:1]) == (182, 0, 14)
    assert _staged([ChoiceIndexStage([2, 1])], first, second) == (182, 0, 18)


def test_text_that_a_stage_holds_back_is_counted() -> None:
    held_back = [piece('{"na', **timings(2)), piece('me": ', **timings(4))]
    assert _staged([ToolCallStage(None, "tool_calls")], [progress(50, cache=10), *held_back]) == (50, 10, 4)


def test_usage_of_the_whole_is_counted_once_whatever_the_stages() -> None:
    events = [piece("{", **timings(1)), {"choices": [], **usage(50, 3, 10)}]
    assert _staged([ToolCallStage("f", "stop")], events) == (50, 10, 3)


USAGE = {"choices": [], "object": "chat.completion.chunk", **usage(50, 3, 10), **timings(3)}


@pytest.mark.parametrize("wants_usage", [True, False])
@pytest.mark.parametrize("wants_timings", [True, False])
def test_client_gets_the_figures_that_it_asked_for_and_no_others(wants_usage: bool, wants_timings: bool) -> None:
    payload: ChatPayload = {"timings_per_token": wants_timings, "stream_options": {"include_usage": wants_usage}}
    renderer = ChatRenderer(Transcript(), payload, "sess_1")
    plain = piece('a "timings":{"x":1}, "usage" {', object="chat.completion.chunk")
    events = [plain | timings(1), plain | timings(2), USAGE]
    batch = EventBatch(b"".join(map(encode_event, events)))
    relayed = renderer.relay(batch)
    if relayed is None:
        relayed = b"".join(map(renderer.event, batch.events))
    sent = [orjson.loads(event[6:]) for event in relayed.split(b"\n\n") if event]
    no_usage = {"usage": None} if wants_usage else {}
    expected = [event if wants_timings or event is USAGE else plain for event in events]
    assert sent == [
        event if event is USAGE else event | no_usage for event in expected if wants_usage or event is not USAGE
    ]


def test_chunks_without_figures_are_relayed_untouched_before_anybody_decodes_them() -> None:
    renderer = ChatRenderer(Transcript(), {}, "sess_1")
    batch = EventBatch(encode_event(piece("a", usage_note=1)))
    assert renderer.relay(batch) is batch.raw
    assert renderer.event(StreamEvent(b": ping\n\n")) == b": ping\n\n"


WITH_USAGE: ChatPayload = {"stream_options": {"include_usage": True}}


def _sent(payload: ChatPayload, *events: dict[str, Any], at_once: bool) -> list[dict[str, Any]]:
    """Return what a client is sent of these events, which arrive together or one by one."""
    renderer, raw = ChatRenderer(Transcript(), payload, "sess_1"), list(map(encode_event, events))
    sent = b""
    for batch in [EventBatch(b"".join(raw))] if at_once else map(EventBatch, raw):
        relayed = renderer.relay(batch)
        sent += b"".join(map(renderer.event, batch.events)) if relayed is None else relayed
    return [orjson.loads(event[6:]) for event in sent.split(b"\n\n") if event]


@pytest.mark.parametrize("at_once", [True, False])
def test_every_chunk_but_the_last_has_null_usage_where_the_client_asks_for_it(at_once: bool) -> None:
    text = piece('}\n\n", "usage": {}}', object="chat.completion.chunk")
    null = text | {"usage": None}  # as engines send it that do as OpenAI does
    assert _sent(WITH_USAGE, text, null, text, USAGE, at_once=at_once) == [null, null, null, USAGE]
    assert _sent({}, text, text, USAGE, at_once=at_once) == [text, text]


def test_timings_of_another_form_stay() -> None:
    nested = piece("a") | {"timings": {"prompt": {"ms": 1}}}
    assert _sent({}, nested, piece("b", **timings(1)), at_once=True) == [nested, piece("b")]


def test_all_chunks_of_a_stream_say_what_has_generated_them() -> None:
    """llama.cpp's own fingerprint, in whatever event it stands first, and nothing that a text quotes."""
    events = [
        progress(3) | {"system_fingerprint": "b0-unknown"},
        *(piece('"system_fingerprint":"b0-unknown"', system_fingerprint="b0-unknown") for _ in range(2)),
    ]
    chunks = ChunkStream(
        cast("UpstreamResponse", _Answer(events, cut=False)), show_progress=True, fingerprint="engine-1-abc"
    )
    sent = [event.data or {} for batch in chunks for event in batch.events]
    assert [each.get("system_fingerprint") for each in sent] == ["engine-1-abc"] * 3
    assert sent[1]["choices"][0]["delta"]["content"] == '"system_fingerprint":"b0-unknown"'
