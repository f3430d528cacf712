"""Responses in the background that nothing generates: how they wait, and how they are ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mistral_api.delivery.writer import writer_starter
from mistral_api.errors import ApiError
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.responses.background import MOST_EVENT_BYTES, MOST_WAITING_BYTES, BackgroundRunner, LiveResponse
from mistral_api.responses.preparation import parse_input_items, prepare_response
from mistral_api.responses.response_run import ResponseRun
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.security.access import Caller
from mistral_api.system.identifiers import new_id
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.sse import SSEStream
from tests.support.exchanges import engine_that_is_away

Make = Callable[..., LiveResponse]


def _never() -> SSEStream:
    raise AssertionError("nothing is generated here")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes responses that were asked for just now."""
    recorder = Recorder(tmp_path, RecordingPolicy(), writer_starter(engine_that_is_away()))

    def made(size: int = 1, instructions: str = "") -> LiveResponse:
        request = {"input": "Hi.", "background": True, "instructions": instructions}
        ready = prepare_response(request, parse_input_items(request), StoredContext("sess_1"), "m")
        asked = RequestContext(Caller("me", None, local=True), new_id(), None, request)
        return LiveResponse(
            "me",
            ResponseRun(ready, RunningExchange(recorder, "/v1/responses", asked), _never),
            UpstreamCall(),
            size,
        )

    yield made
    recorder.close(seconds=0)


@pytest.fixture
def background() -> BackgroundRunner:
    """One without a thread."""
    return BackgroundRunner(0)


def test_no_more_waits_than_fits(background: BackgroundRunner, make: Make) -> None:
    background.require_room(MOST_WAITING_BYTES + 1)
    first = make(MOST_WAITING_BYTES - 10)
    background.add(first)
    background.require_room(10)
    with pytest.raises(ApiError, match="Too many responses wait"):
        background.require_room(11)
    first.cancel()
    background.require_room(MOST_WAITING_BYTES)


def test_what_waits_is_ended_and_what_comes_then_too(background: BackgroundRunner, make: Make) -> None:
    waiting, late = make(), make()
    background.add(waiting)
    background.close_queue()
    background.add(late)
    for live in (waiting, late):
        # Whoever follows gets the end, and who cancels then changes nothing.
        live.cancel()
        assert [event.split(b"\n")[0] for event in live.follow()] == [
            b"event: response.created", b"event: response.queued", b"event: error", b"event: response.failed"
        ]  # fmt: skip
        assert live.response["status"] == "failed"
        live.generate()
    with pytest.raises(ApiError, match="shutting down"):
        background.require_room(1)


def test_events_are_forgotten_the_oldest_first_when_they_take_too_much(
    background: BackgroundRunner, make: Make
) -> None:
    lives = [make(instructions="x" * (MOST_EVENT_BYTES // 8)) for _ in range(4)]
    for live in lives:
        background.add(live)
        live.cancel()
    last = make()
    background.add(last)
    found = [background.find("me", live.response["id"]) is not None for live in (*lives, last)]
    assert found == [False, False, True, True, True]
    assert background.find("you", last.response["id"]) is None


def test_what_is_too_old_goes_once_it_has_ended(background: BackgroundRunner, make: Make) -> None:
    ended, waiting = make(), make()
    for live in (ended, waiting):
        background.add(live)
    ended.cancel()
    background.forget_before(ended.response["created_at"] + 1)
    assert background.find("me", ended.response["id"]) is None
    assert background.find("me", waiting.response["id"]) is waiting
