"""Background responses that are never generated: how they wait, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mistral_api.errors import ApiError
from mistral_api.responses.background import MOST_EVENT_BYTES, MOST_WAITING_BYTES, BackgroundRunner
from mistral_api.responses.background_response import BackgroundResponse
from tests.support.background_responses import background_response
from tests.support.exchanges import undelivered_recorder

MakeResponse = Callable[..., BackgroundResponse]


@pytest.fixture
def make_response(tmp_path: Path) -> Iterator[MakeResponse]:
    """A function that makes new background responses."""
    recorder = undelivered_recorder(tmp_path)
    yield partial(background_response, recorder)
    recorder.close(seconds=0)


@pytest.fixture
def background() -> BackgroundRunner:
    """A runner without a thread."""
    return BackgroundRunner(0)


def test_background_queue_refuses_more_bytes_than_it_holds(
    background: BackgroundRunner, make_response: MakeResponse
) -> None:
    background.require_room(MOST_WAITING_BYTES + 1)
    first = make_response(size=MOST_WAITING_BYTES - 10)
    background.add(first)
    background.require_room(10)
    with pytest.raises(ApiError, match="Too many responses wait"):
        background.require_room(11)
    first.cancel()
    background.require_room(MOST_WAITING_BYTES)


def test_closed_background_queue_fails_waiting_and_new_responses(
    background: BackgroundRunner, make_response: MakeResponse
) -> None:
    waiting, late = make_response(), make_response()
    background.add(waiting)
    background.close_queue()
    background.add(late)
    for live in (waiting, late):
        # A follower gets the end of the stream, and a later cancel changes nothing.
        live.cancel()
        assert [event.split(b"\n")[0] for event in live.follow()] == [
            b"event: response.created", b"event: response.queued", b"event: error", b"event: response.failed"
        ]  # fmt: skip
        assert live.response["status"] == "failed"
        live.generate()
    with pytest.raises(ApiError, match="shutting down"):
        background.require_room(1)


def test_oldest_background_responses_are_evicted_when_events_take_too_much_memory(
    background: BackgroundRunner, make_response: MakeResponse
) -> None:
    lives = [make_response(instructions="x" * (MOST_EVENT_BYTES // 8)) for _ in range(4)]
    for live in lives:
        background.add(live)
        live.cancel()
    last = make_response()
    background.add(last)
    found = [background.find("me", live.response["id"]) is not None for live in (*lives, last)]
    assert found == [False, False, True, True, True]
    assert background.find("you", last.response["id"]) is None


def test_background_response_past_retention_is_forgotten_only_after_its_end(
    background: BackgroundRunner, make_response: MakeResponse
) -> None:
    ended, waiting = make_response(), make_response()
    for live in (ended, waiting):
        background.add(live)
    ended.cancel()
    background.forget_before(ended.response["created_at"] + 1)
    assert background.find("me", ended.response["id"]) is None
    assert background.find("me", waiting.response["id"]) is waiting
