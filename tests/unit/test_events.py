"""Server-sent events as bytes."""

import pytest

from mistral_api.upstream.sse import EventSplitter, StreamEvent, event_data, event_error, split_events


def test_whole_events_pass_as_they_are() -> None:
    assert EventSplitter().feed(b'data: {"a":1}\n\ndata: {"a":2}\n\n') == b'data: {"a":1}\n\ndata: {"a":2}\n\n'


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_pieces_of_any_size_come_out_as_whole_events(size: int) -> None:
    stream = b'data: {"text":"h\xc3\xa9"}\n\n: ping\n\ndata: [DONE]\n\n'
    splitter = EventSplitter()
    out = [splitter.feed(stream[start : start + size]) for start in range(0, len(stream), size)]
    assert b"".join(out) == stream
    assert all(run.endswith(b"\n\n") for run in out if run)


def test_a_run_of_events_is_cut_into_single_ones() -> None:
    assert split_events(b"data: 1\n\ndata: 2\n\n") == [b"data: 1", b"data: 2"]


@pytest.mark.parametrize("event", [b": ping", b"data: [DONE]", b"data: {broken", b"event: x"])
def test_what_carries_no_json_has_no_data(event: bytes) -> None:
    assert event_data(event) is None


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"boom","code":500}}',
        b'error: {"message":"boom","code":500}',
        b'error: {"error":{"message":"boom","code":500}}',
    ],
)
def test_a_failure_is_recognised_in_each_form_that_llama_cpp_has_sent(event: bytes) -> None:
    error = event_error(StreamEvent(event))
    assert error is not None
    assert (error["message"], error["code"]) == ("boom", 500)


def test_text_that_speaks_of_errors_is_no_failure() -> None:
    assert event_error(StreamEvent(b'data: {"choices":[{"delta":{"content":"\\"error\\": no"}}]}')) is None
    assert event_error(StreamEvent(b'data: {"choices":[],"error":null}')) is None
