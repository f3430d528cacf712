"""A permit ends with its request, also where the application or the WSGI server fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mistral_api.event_loop.wsgi import BEFORE_SENDING
from mistral_api.security.rate_limits import Permit, RateLimits
from mistral_api.web.rate_limits import _PERMIT, ReleasingApplication, duration
from tests.support.limited_callers import caller_with_key


@pytest.fixture
def limits() -> RateLimits:
    """Rate limits in which nothing runs."""
    return RateLimits()


@pytest.fixture
def permit(limits: RateLimits) -> Permit:
    """The permit of a running request."""
    permit = limits.admit(caller_with_key(concurrent_requests=1))
    assert permit is not None
    return permit


def _start_response(*_: Any) -> Any:
    return lambda _data: None


def test_an_application_that_fails_releases_the_permit(limits: RateLimits, permit: Permit) -> None:
    def fail(environ: Any, _start: Any) -> Any:
        environ[_PERMIT] = permit
        raise SystemExit("while the response was started")

    with pytest.raises(SystemExit):
        ReleasingApplication(fail)({}, _start_response)
    assert len(limits.running) == 0


def test_a_response_releases_the_permit_when_it_is_closed_and_not_before(limits: RateLimits, permit: Permit) -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            raise ConnectionError("the model server is gone")

        def close(self) -> None:
            closed.append(True)

    def answer(environ: Any, _start: Any) -> Any:
        environ[_PERMIT] = permit
        return Body()

    response: Any = ReleasingApplication(answer)({}, _start_response)
    events = iter(response)
    assert next(events) == b"one"
    assert len(limits.running) == 1
    with pytest.raises(ConnectionError):
        next(events)
    response.close()
    response.close()
    assert (len(limits.running), closed[:1]) == (0, [True])


@pytest.mark.parametrize(("piece", "is_last"), [(b"whole", True), (b"data: [DONE]\n\n", False), (b"", True)])
def test_our_web_server_has_the_permit_released_before_the_client_sees_the_end(
    limits: RateLimits, permit: Permit, piece: bytes, is_last: bool
) -> None:
    environ: dict[str, Any] = {_PERMIT: permit}
    response: Any = ReleasingApplication(lambda _environ, _start: [piece])(environ, _start_response)
    environ[BEFORE_SENDING](b"data: {}\n\n", False)
    assert len(limits.running) == 1
    environ[BEFORE_SENDING](piece, is_last)
    assert len(limits.running) == 0
    response.close()
    assert len(limits.running) == 0


def test_a_response_without_a_permit_is_passed_on_untouched() -> None:
    body, environ = [b"whole"], dict[str, Any]()
    assert ReleasingApplication(lambda _environ, _start: body)(environ, _start_response) is body
    assert not environ


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.2, "1s"), (1, "1s"), (59.5, "1m0s"), (60, "1m0s"), (119.1, "2m0s"), (360, "6m0s")],
)
def test_durations_are_those_of_openai(seconds: float, text: str) -> None:
    assert duration(seconds) == text
