"""Server-sent events as bytes."""

import pytest

from mistral_api.upstream.sse import EventSplitter, StreamEvent, event_data, event_error, split_events


def test_complete_events_pass_unchanged() -> None:
    assert EventSplitter().feed(b'data: {"a":1}\n\ndata: {"a":2}\n\n') == b'data: {"a":1}\n\ndata: {"a":2}\n\n'


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_pieces_of_any_size_are_joined_to_complete_events(size: int) -> None:
    stream = b'data: {"text":"h\xc3\xa9"}\n\n: ping\n\ndata: [DONE]\n\n'
    splitter = EventSplitter()
    out = [splitter.feed(stream[start : start + size]) for start in range(0, len(stream), size)]
    assert b"".join(out) == stream
    assert all(run.endswith(b"\n\n") for run in out if run)


def test_several_events_are_split_into_single_ones() -> None:
    assert split_events(b"data: 1\n\ndata: 2\n\n") == [b"data: 1", b"data: 2"]


@pytest.mark.parametrize("event", [b": ping", b"data: [DONE]", b"data: {broken", b"event: x"])
def test_event_without_json_has_no_data(event: bytes) -> None:
    assert event_data(event) is None


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"boom","code":500}}',
        b'error: {"message":"boom","code":500}',
        b'error: {"error":{"message":"boom","code":500}}',
    ],
)
def test_error_event_is_recognised_in_every_form_of_llama_cpp(event: bytes) -> None:
    error = event_error(StreamEvent(event))
    assert error is not None
    assert (error["message"], error["code"]) == ("boom", 500)


def test_text_that_contains_the_word_error_is_no_error_event() -> None:
    assert event_error(StreamEvent(b'data: {"choices":[{"delta":{"content":"\\"error\\": no"}}]}')) is None
    assert event_error(StreamEvent(b'data: {"choices":[],"error":null}')) is None
