"""How many requests wait in a lane, and which are refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mistral_api.event_loop.loop import EventLoop
from mistral_api.serving.lanes import Lanes
from tests.support.event_loops import running_loop


class _Request:
    def __init__(self, path: str, command: str) -> None:
        self.path, self.command = path, command
        self.error: object = None

    def refuse(self, error: object) -> None:
        self.error = error


class _Channel:
    """A channel whose one request takes until ``released``."""

    def __init__(self, path: str, released: threading.Event, command: str = "GET") -> None:
        self.requests = [_Request(path, command)]
        self.client: Any = type("Client", (), {"refusal": None})
        self._released = released
        self.answered = threading.Event()

    def service(self) -> None:
        self._released.wait(10)
        self.answered.set()

    def cancel(self) -> None:
        """Nothing is open."""


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with running_loop() as running:
        yield running


def test_scrapes_that_wait_for_the_model_server_do_not_hold_up_health(loop: EventLoop) -> None:
    lanes, released, at_once = Lanes(1, 10, loop), threading.Event(), threading.Event()
    at_once.set()
    health = _Channel("/health/ready", at_once)
    try:
        for _ in range(4):
            lanes.add_task(_Channel("/metrics", released))
        lanes.add_task(health)
        assert health.answered.wait(10)
    finally:
        released.set()
        lanes.shutdown()


@pytest.mark.parametrize(("path", "refused"), [("/health/live", False), ("/health", True), ("/v1/models", True)])
def test_liveness_alone_is_told_to_all_that_ask(loop: EventLoop, path: str, refused: bool) -> None:
    lanes, released = Lanes(1, 10, loop), threading.Event()
    channels = [_Channel(path, released) for _ in range(200)]
    try:
        for channel in channels:
            lanes.add_task(channel)
        assert any(channel.requests[0].error is not None for channel in channels) is refused
    finally:
        released.set()
        lanes.shutdown()


@pytest.mark.parametrize(
    ("method", "path", "is_free"),
    [
        ("GET", "/v1/conversations", True),
        ("POST", "/v1/conversations", True),
        ("DELETE", "/v1/responses/resp_1", True),
        ("GET", "/v1/models", True),
        ("GET", "/", True),
        ("POST", "/v1/embeddings", False),
        ("GET", "/props", False),
    ],
)
def test_what_asks_the_model_server_does_not_hold_up_who_reads(
    loop: EventLoop, method: str, path: str, is_free: bool
) -> None:
    lanes, released, at_once = Lanes(1, 10, loop), threading.Event(), threading.Event()
    at_once.set()
    asked = _Channel(path, at_once, method)
    try:
        for _ in range(4):
            lanes.add_task(_Channel("/v1/embeddings", released, "POST"))
        lanes.add_task(asked)
        assert asked.answered.wait(5 if is_free else 0.1) is is_free
    finally:
        released.set()
        lanes.shutdown()
