"""When a request is sent again to the model server, and when it fails."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from mistral_api.errors import ModelServerLost, ModelUnavailable
from mistral_api.settings import Settings
from mistral_api.upstream import client as module
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.client import RetryPolicy
from mistral_api.upstream.errors import ClientClosedRequest
from tests.support.model_server_clients import model_server_client

LOST = ModelServerLost("It hung up.")
AWAY = ModelUnavailable("Nobody listens.")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses so far; the clock moves only by them."""
    slept: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: sum(slept)))
    monkeypatch.setattr(module, "waiting", SimpleNamespace(sleep=slept.append))
    return slept


def _policy(wait_seconds: float = 30.0, given_up: Callable[[], str | None] = lambda: None) -> RetryPolicy:
    return RetryPolicy(wait_seconds, 60.0, given_up)


def _repeat(tries: Callable[[], None]) -> None:
    for _ in range(10_000):
        tries()


def test_dying_server_may_drop_a_request_several_times() -> None:
    waiting = _policy()
    for _ in range(3):
        waiting.after_lost(LOST)
    waiting.after_unavailable(AWAY)


def test_request_that_killed_a_server_is_not_sent_to_the_next_one_twice() -> None:
    waiting = _policy()
    waiting.after_unavailable(AWAY)
    waiting.after_lost(LOST)
    waiting.after_unavailable(AWAY)
    with pytest.raises(ModelServerLost):
        waiting.after_lost(LOST)


def test_request_that_may_have_hung_the_server_is_not_sent_again(pauses: list[float]) -> None:
    waiting = _policy(wait_seconds=300)
    pauses.append(59.0)
    waiting.after_lost(LOST)
    pauses.append(60.0)
    with pytest.raises(ModelServerLost):
        waiting.after_lost(LOST)


def test_server_that_only_drops_connections_is_not_retried_forever(pauses: list[float]) -> None:
    waiting = _policy()
    with pytest.raises(ModelServerLost):
        _repeat(lambda: waiting.after_lost(LOST))
    assert 0 < sum(pauses) <= module.DYING_SECONDS + module.RETRY_SECONDS


def test_retries_end_after_model_wait_seconds(pauses: list[float]) -> None:
    waiting = _policy(wait_seconds=2.0)
    with pytest.raises(ModelUnavailable):
        _repeat(lambda: waiting.after_unavailable(AWAY))
    assert sum(pauses) == pytest.approx(2.0, abs=module.RETRY_SECONDS)


def test_retries_end_with_the_reason_of_a_supervisor_that_gave_up() -> None:
    with pytest.raises(ModelUnavailable, match="no such file"):
        _policy(given_up=lambda: "no such file").after_unavailable(AWAY)


def test_cancelled_call_does_not_wait_for_the_model_server(pauses: list[float]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with model_server_client(Settings(model_server_url=url)) as server:
            call = UpstreamCall()
            call.cancel("client")
            with pytest.raises(ClientClosedRequest):
                server.request("/v1/completions", {}, call)
    assert not pauses
