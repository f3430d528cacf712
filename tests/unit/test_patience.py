"""When a request tries again, and when it gives up."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from mistral_api.errors import ModelServerLost, ModelUnavailable
from mistral_api.settings import Settings
from mistral_api.upstream import client as module
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.client import ModelServerClient, RetryPolicy
from mistral_api.upstream.errors import ClientClosedRequest

LOST = ModelServerLost("It hung up.")
AWAY = ModelUnavailable("Nobody listens.")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the pauses move."""
    slept: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept)))
    return slept


def _patience(wait_seconds: float = 30.0, given_up: Callable[[], str | None] = lambda: None) -> RetryPolicy:
    return RetryPolicy(wait_seconds, 60.0, given_up)


def _exhaust(tries: Callable[[], None]) -> None:
    for _ in range(10_000):
        tries()


def test_a_dying_server_may_hang_up_several_times() -> None:
    waiting = _patience()
    for _ in range(3):
        waiting.after_lost(LOST)
    waiting.after_unavailable(AWAY)


def test_a_request_that_kills_the_server_is_not_sent_to_the_next_one_too() -> None:
    waiting = _patience()
    waiting.after_unavailable(AWAY)
    waiting.after_lost(LOST)
    waiting.after_unavailable(AWAY)
    with pytest.raises(ModelServerLost):
        waiting.after_lost(LOST)


def test_a_request_that_may_be_why_the_server_hung_is_not_sent_again(pauses: list[float]) -> None:
    waiting = _patience(wait_seconds=300)
    pauses.append(59.0)
    waiting.after_lost(LOST)
    pauses.append(60.0)
    with pytest.raises(ModelServerLost):
        waiting.after_lost(LOST)


def test_one_that_only_hangs_up_is_not_tried_for_ever(pauses: list[float]) -> None:
    waiting = _patience()
    with pytest.raises(ModelServerLost):
        _exhaust(lambda: waiting.after_lost(LOST))
    assert 0 < sum(pauses) <= module.DYING_SECONDS + module.RETRY_SECONDS


def test_nobody_waits_longer_than_the_setting_says(pauses: list[float]) -> None:
    waiting = _patience(wait_seconds=2.0)
    with pytest.raises(ModelUnavailable):
        _exhaust(lambda: waiting.after_unavailable(AWAY))
    assert sum(pauses) == pytest.approx(2.0, abs=module.RETRY_SECONDS)


def test_a_supervisor_that_gave_up_ends_the_wait_with_its_reason() -> None:
    with pytest.raises(ModelUnavailable, match="no such file"):
        _patience(given_up=lambda: "no such file").after_unavailable(AWAY)


def test_a_client_that_left_waits_for_nothing(pauses: list[float]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # held, but not listened on
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with contextlib.closing(
            ModelServerClient(Settings(model_server_url=url), lambda: None, lambda: False)
        ) as server:
            call = UpstreamCall()
            call.cancel("client")
            with pytest.raises(ClientClosedRequest):
                server.post("/v1/completions", {}, call)
    assert not pauses
