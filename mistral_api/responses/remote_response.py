"""A response in the background as another API process sees it: what is asked of the one that generates it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Literal, TypedDict
from uuid import UUID

import orjson

from mistral_api.errors import Unavailable
from mistral_api.event_loop import waiting
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import Response
from mistral_api.responses.background import BackgroundRunner
from mistral_api.responses.background_response import PING_INTERVAL_SECONDS, BackgroundResponse, followed

# Of the events that are there no more are in one answer, but for a single one that is longer.
MOST_ANSWER_BYTES = 1 << 20
# How long events are gathered, so that a follower asks no more than 50 times a second.
GATHER_SECONDS = 0.02
# So many responses that others follow can be followed to their end, also where newer ones have taken their place.
MOST_FOLLOWED = 100

# state: what it is now; cancel: end it; wait: until it has ended, for some seconds; since: the events from a number on.
Question = Literal["state", "input", "cancel", "wait", "since"]
# Returns the answer to a question with a number (of seconds, or of an event); None where no process has the response.
# Raises Unavailable.
Ask = Callable[[Question, float], Any]


class ResponseState(TypedDict):
    """The answer to most questions."""

    response: Response
    ended: bool


def longest_wait(question: Question, argument: float) -> float:
    """Return for how many seconds an answer may be waited for by whoever gives it."""
    return {"wait": argument, "since": PING_INTERVAL_SECONDS}.get(question, 0.0)


class RemoteAnswers:
    """Answers what other processes ask of the responses of this one. To be called in a task, or on a thread."""

    def __init__(self, runner: BackgroundRunner, forget_deleted: Callable[[], None]) -> None:
        """``forget_deleted`` drops what other processes have deleted by now; it reads a file."""
        self._runner = runner
        self._forget_deleted = forget_deleted
        self._followed: dict[str, BackgroundResponse] = {}

    def answer(self, owner: str, response_id: str, question: Question, argument: float) -> Any:
        """Return the answer to a question, None where this process does not have the response."""
        if question == "since":
            return self._since(owner, response_id, int(argument))
        waiting.aside(self._forget_deleted)
        live = self._runner.find_here(owner, response_id)
        if live is None:
            return None
        if question == "input":
            return {"input": live.input}
        if question == "cancel":
            waiting.aside(live.cancel)
        elif question == "wait":
            live.wait(argument)
        return _state(live)

    def _since(self, owner: str, response_id: str, number: int) -> tuple[list[str], bool] | None:
        live = self._followed.get(response_id)
        if live is None or live.owner != owner:
            live = self._runner.find_here(owner, response_id)
        if live is None:
            return None
        self._followed[response_id] = live
        if len(self._followed) > MOST_FOLLOWED:
            del self._followed[next(iter(self._followed))]
        events, ended = live.since(number)
        if events and not ended:  # more come soon: one answer has them all
            waiting.sleep(GATHER_SECONDS)
            events, ended = live.since(number)
        some = _first_bytes(events)
        is_last = ended and len(some) == len(events)
        if is_last:
            self._followed.pop(response_id, None)
        return [event.decode() for event in some], is_last


def _state(live: BackgroundResponse) -> ResponseState:
    ended = live.ended  # first: what has ended does not change any more
    return {"response": live.response, "ended": ended}


def _first_bytes(events: list[bytes]) -> list[bytes]:
    """Return the first events, of at most MOST_ANSWER_BYTES, or the first one."""
    count = sum(size <= MOST_ANSWER_BYTES for size in accumulate(map(len, events)))
    return events[: max(1, count)]


class RemoteResponse:
    """A response in the background of another process. Its methods raise Unavailable where that does not answer."""

    def __init__(self, ask: Ask, state: ResponseState) -> None:
        self._ask = ask
        self._state = state

    @property
    def response(self) -> Response:
        """The Response object as it was when it was asked for last."""
        return self._state["response"]

    @property
    def ended(self) -> bool:
        """Whether it has ended and is recorded."""
        return self._state["ended"]

    @property
    def input(self) -> list[tuple[UUID, ChatMessage]] | None:
        """The messages of its input, and their ids; None when it has ended: the store has them then."""
        answer = self._ask("input", 0)
        messages = None if answer is None else answer["input"]
        return None if messages is None else [(UUID(message_id), message) for message_id, message in messages]

    def cancel(self) -> None:
        """End the response."""
        self._update("cancel", 0)

    def wait(self, seconds: float) -> bool:
        """Wait until the response has ended, for at most ``seconds``. Return whether it has."""
        if not self.ended:
            self._update("wait", seconds)
        return self.ended

    def _update(self, question: Question, argument: float) -> None:
        answer = self._ask(question, argument)
        if answer is not None:
            self._state = answer

    def follow(self, after: int = -1) -> Iterator[bytes]:
        """Yield the events after that sequence number, as they come, to the last one.

        Where its process has ended, or does not answer, the last event is an error.
        """
        return followed(self._since, after)

    def _since(self, number: int) -> tuple[list[bytes], bool]:
        try:
            answer = self._ask("since", number)
        except Unavailable:
            answer = None
        if answer is None:
            return [_broken_off(number)], True
        events, ended = answer
        return [event.encode() for event in events], ended


def _broken_off(number: int) -> bytes:
    """Return the last event of a response that can be followed no further."""
    error = {
        "type": "error",
        "code": "server_error",
        "message": "This response can be followed no further: what became of it can be read by its id.",
        "param": None,
        "sequence_number": number,
    }
    return b"event: error\ndata: %b\n\n" % orjson.dumps(error)


def remote_response(ask: Ask) -> RemoteResponse | None:
    """Return the response that is asked of, None where no process has it. Raises Unavailable."""
    state = ask("state", 0)
    return None if state is None else RemoteResponse(ask, state)
