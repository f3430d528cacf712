"""A slow server is not hung: only a server without any progress is."""

from __future__ import annotations

import json

import pytest

from mistral_api.supervisor.hang_detection import (
    HangDetector,
    SlotActivity,
    _activity_from_metrics,
    _activity_from_slots,
)
from tests.support.clock import Clock

IDLE = SlotActivity(0, ())


@pytest.fixture
def clock() -> Clock:
    """A clock at 0."""
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> HangDetector:
    """A detector that calls a server hung after a minute."""
    return HangDetector(60, clock)


def test_idle_server_is_never_hung(watch: HangDetector, clock: Clock) -> None:
    for clock.now in range(0, 1000, 10):
        watch.observe(IDLE)
        assert watch.hang_reason() is None


def test_prompt_that_advances_for_half_an_hour_is_no_hang(watch: HangDetector, clock: Clock) -> None:
    for clock.now in range(0, 1800, 50):
        watch.observe(SlotActivity(1, clock.now))
        assert watch.hang_reason() is None


def test_one_advancing_slot_is_enough_progress(watch: HangDetector, clock: Clock) -> None:
    for clock.now in range(0, 600, 30):
        watch.observe(SlotActivity(2, ("still", clock.now)))
        assert watch.hang_reason() is None


def test_busy_slots_without_progress_are_a_hang(watch: HangDetector, clock: Clock) -> None:
    for clock.now in range(100, 160, 10):
        watch.observe(SlotActivity(2, "still"))
        assert watch.hang_reason() is None
    clock.now = 160
    watch.observe(SlotActivity(2, "still"))
    assert watch.hang_reason() == "none of its 2 busy slots has advanced for 60 s"


def test_end_of_a_request_resets_the_hang_timer(watch: HangDetector, clock: Clock) -> None:
    for clock.now, work in (
        (0, SlotActivity(1, "a")),
        (50, IDLE),
        (60, SlotActivity(1, "a")),
        (110, SlotActivity(1, "a")),
    ):
        watch.observe(work)
        assert watch.hang_reason() is None


def test_missing_probe_response_is_a_hang_unless_a_batch_is_computed(watch: HangDetector, clock: Clock) -> None:
    watch.observe(SlotActivity(1, "a"))
    clock.now = 60
    watch.observe(None)
    assert watch.hang_reason(factor=10) is None
    assert watch.hang_reason() == "it has not answered for 60 s"
    clock.now = 600
    assert watch.hang_reason(factor=10) == "it has not answered for 600 s"


def test_suspended_hang_detector_probes_again_before_it_decides(watch: HangDetector, clock: Clock) -> None:
    watch.observe(SlotActivity(1, "a"))
    clock.now = 3600
    watch.observe(SlotActivity(1, "b"))
    assert watch.hang_reason() is None


def test_progress_is_known_from_the_last_probe(watch: HangDetector, clock: Clock) -> None:
    watch.observe(IDLE)
    assert not watch.is_advancing
    for clock.now, work, advancing in (
        (1, SlotActivity(1, "a"), True),
        (2, SlotActivity(1, "a"), False),
        (3, SlotActivity(1, "b"), True),
    ):
        watch.observe(work)
        assert watch.is_advancing is advancing
    clock.now = 9
    watch.observe(None)
    assert watch.last_progress_at == 3


def test_slots_response_gives_prompt_progress_and_decoded_tokens() -> None:
    def work(**counts: object) -> SlotActivity | None:
        busy: dict[str, object] = {"id": 1, "id_task": 5, "is_processing": True, "n_prompt_tokens_processed": 64}
        busy["next_token"] = [{"n_decoded": 3}]
        return _activity_from_slots(json.dumps([{"id": 0, "is_processing": False}, busy | counts]).encode())

    first = work()
    assert first is not None
    assert first.busy_slots == 1
    assert work() == first
    for other in ({"n_prompt_tokens_processed": 128}, {"next_token": [{"n_decoded": 4}]}, {"id_task": 6}):
        assert work(**other) != first
    # Builds of 2024 have an object instead of a list.
    assert work(next_token={"n_decoded": 3}) == first
    assert work(next_token=[]) is not None


@pytest.mark.parametrize("body", [b"", b"\xff", b"{}", b"[1]", b'[{"id": 0}]', b"null"])
def test_invalid_slots_response_is_no_activity(body: bytes) -> None:
    assert _activity_from_slots(body) is None


def test_metrics_response_gives_requests_and_decode_count() -> None:
    text = b"# HELP x\nllamacpp:requests_processing 2\nllamacpp:n_decode_total 1.5e+06\nllamacpp:other 1\n"
    assert _activity_from_metrics(text) == SlotActivity(2, 1500000.0)
    assert _activity_from_metrics(b"llamacpp:requests_processing 2\n") is None
    assert _activity_from_metrics(b"llamacpp:requests_processing x\nllamacpp:n_decode_total 1\n") is None
