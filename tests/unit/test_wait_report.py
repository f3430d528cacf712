"""What the client of a stream is told while it waits, and when nothing may be said yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from mistral_api.errors import ApiError, InvalidRequest, ModelServerError, ModelServerRefused
from mistral_api.generation.endpoint import CHAT, COMPLETION, Endpoint
from mistral_api.generation.llama_cpp_endpoint import INFILL
from mistral_api.generation.prompt_check import CHECKS_AT_ONCE, PromptChecker
from mistral_api.generation.wait_report import PATIENCE_SECONDS, WaitReport
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import ContextExceeded
from mistral_api.upstream.token_counter import TokenCounter

HELLO: Any = {"messages": [{"role": "user", "content": "Hi"}]}


class Place:
    """A place in the queue."""

    position = 12

    def __init__(self) -> None:
        self.refusals: list[ApiError] = []

    def refuse(self, error: ApiError) -> None:
        self.refusals.append(error)


def _call(check: Callable[[Callable[[], bool]], bool | None] | None = None) -> UpstreamCall:
    call = UpstreamCall()
    call.place, call.check = Place(), check
    return call


def test_a_request_that_is_known_to_be_taken_is_told_where_it_is() -> None:
    call = _call(lambda is_needed: is_needed())
    report = WaitReport(call)
    assert report.text(generating=False) == "queued, position 12"
    call.place = None
    assert report.text(generating=False) == "waiting for the model server"
    call.answered = True
    assert report.text(generating=False) == "reading the prompt"
    assert report.text(generating=True) == "generating"


def test_nothing_is_said_until_the_model_server_is_known_to_take_the_request() -> None:
    checks: list[bool] = []

    def check(is_needed: Callable[[], bool]) -> bool:
        checks.append(is_needed())
        return False

    call = _call(check)
    report = WaitReport(call)
    assert [report.text(generating=False) for _ in range(3)] == [None] * 3
    assert checks == [True]
    call.answered = True
    assert report.text(generating=False) == "queued, position 12"
    assert WaitReport(_call()).text(generating=False) is None


def test_a_check_that_tells_nothing_yet_is_made_again() -> None:
    results: list[bool | None] = [None, None, True]
    report = WaitReport(_call(lambda _is_needed: results.pop(0)))
    said = [report.text(generating=False) for _ in range(4)]
    assert said == [None, None, "queued, position 12", "queued, position 12"]


def test_a_client_is_told_before_a_proxy_cuts_it_where_checks_are_not_made() -> None:
    now, checks = [0.0], 0

    def check(_is_needed: Callable[[], bool]) -> None:
        nonlocal checks
        checks += 1

    report = WaitReport(_call(check), clock=lambda: now[0])
    assert report.text(generating=False) is None
    now[0] = PATIENCE_SECONDS
    assert [report.text(generating=False) for _ in range(2)] == ["queued, position 12"] * 2
    assert checks == 2


def test_a_refusal_ends_the_wait() -> None:
    error = ModelServerRefused("No.")

    def check(_is_needed: Callable[[], bool]) -> bool:
        raise error

    call = _call(check)
    assert WaitReport(call).text(generating=False) is None
    assert isinstance(call.place, Place)
    assert call.place.refusals == [error]


class Counter:
    """A model server that counts tokens: of text, a token a character."""

    def __init__(self, error: ApiError | None = None) -> None:
        self.error = error

    def context(self, _call: UpstreamCall) -> int:
        if self.error is not None:
            raise self.error
        return 10

    def count_tokens(self, messages: list[Mapping[str, Any]], **_more: object) -> int:
        return sum(len(message["content"]) for message in messages)

    def count_text(self, text: str, _call: UpstreamCall) -> int:
        return len(text)


def _accepts(endpoint: Endpoint, request: Any, *, llama_cpp: bool = True, error: ApiError | None = None) -> bool | None:
    checker = PromptChecker(cast(TokenCounter, Counter(error)), lambda: llama_cpp)
    return checker.accepts(endpoint, cast(ChatPayload, request), lambda: True)


@pytest.mark.parametrize(
    ("endpoint", "request_body", "accepted"),
    [
        (CHAT, HELLO, True),
        (CHAT, HELLO | {"grammar": 'root ::= "a"'}, False),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
            False,
        ),
        (COMPLETION, {"prompt": "Hi"}, True),
        (COMPLETION, {"prompt": ["Hi", "there"]}, True),
        (COMPLETION, {"prompt": [1, 2, 3]}, True),
        (COMPLETION, {"prompt": [1, "Hi"]}, False),
        (COMPLETION, {"prompt": ["Hi"] * 9}, False),
        (INFILL, {"input_prefix": "Hi", "input_suffix": "", "prompt": "Hi"}, False),
    ],
)
def test_what_counting_tells(endpoint: Endpoint, request_body: Any, accepted: bool) -> None:
    assert _accepts(endpoint, request_body) is accepted


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [(CHAT, {"messages": [{"role": "user", "content": "x" * 10}]}), (COMPLETION, {"prompt": ["Hi", "x" * 10]})],
)
def test_a_prompt_that_leaves_no_room_is_refused(endpoint: Endpoint, body: Any) -> None:
    with pytest.raises(ContextExceeded) as caught:
        _accepts(endpoint, body)
    assert (caught.value.status, caught.value.limit, caught.value.used) == (400, 10, 10)


def test_an_engine_that_cannot_be_asked_says_nothing() -> None:
    assert _accepts(CHAT, HELLO, llama_cpp=False) is False
    assert _accepts(CHAT, HELLO, error=InvalidRequest("It cannot count.")) is False


def test_a_failure_that_may_pass_tells_nothing_yet() -> None:
    assert _accepts(CHAT, HELLO, error=ModelServerError("It broke off.")) is None


def test_who_has_no_turn_to_be_checked_does_not_wait_for_it() -> None:
    checker = PromptChecker(cast(TokenCounter, Counter()), lambda: True)
    others: list[bool | None] = []

    def check_others() -> bool:
        if len(others) < CHECKS_AT_ONCE:
            others.append(checker.accepts(CHAT, HELLO, check_others))
        return True

    assert checker.accepts(CHAT, HELLO, check_others)
    assert None in others
